"""The figures as text: each setting and version of the search by itself, then the versions side by side."""

from __future__ import annotations

from typing import Any

from search_quality.protocol import EVERYTHING

OTHERS = (
    *(name for name in EVERYTHING if name not in ("searched", "mobilenetv3")),
    "mobilenetv3-small",
    "mobilenetv3-large",
)


def table(variants: dict[str, dict[str, Any]]) -> str:
    """All settings of all versions of the search."""
    lines = []
    for setting in dict.fromkeys(name for variant in variants.values() for name in variant["settings"]):
        own = {name: found["settings"][setting] for name, found in variants.items() if setting in found["settings"]}
        for name, content in own.items():
            lines += _block(setting, name, content)
        lines += _side_by_side(setting, own)
    return "\n".join(lines)


def _side_by_side(setting: str, variants: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each version of the search: what ours is above each contender, in points, with standard errors.

    On the validation images: the test split decides nothing.
    """
    figures = {name: content["by_split"]["val"] for name, content in variants.items()}
    others = [other for other in OTHERS if any(other in found["ours_minus"] for found in figures.values())]
    columns = ["accuracy", *(f"-{other.removeprefix('mobilenetv3-')}" for other in others), "-best of K"]
    lines = ["", f"{setting}, validation images, in points"]
    lines.append(f"  {'search':16}" + "".join(f"{c:>16}" for c in columns) + f"{'percentile':>12}{'tau':>7}{'cost':>7}")
    for name, found in figures.items():
        gains = [*(found["ours_minus"].get(other) for other in others), found["equal_cost"]["gain"]]
        taus = [tau for tau in found["kendall_tau"] if tau is not None]
        cells = [f"{100 * found['accuracy']['searched']['mean']:.2f}", *map(_short, gains)]
        tau = f"{sum(taus) / len(taus):+.2f}" if taus else "-"
        lines.append(
            f"  {name:16}"
            + "".join(f"{cell:>16}" for cell in cells)
            + f"{found['percentile']:12.0f}{tau:>7}{variants[name]['search_cost']:7.2f}"
        )
    return lines


def _short(found: dict[str, float] | None) -> str:
    return "" if found is None else f"{100 * found['mean']:+.2f} ({100 * found['standard_error']:.2f})"


def _block(setting: str, name: str, content: dict[str, Any]) -> list[str]:
    lines = []
    measured = content["measured"]
    noisy = f", noisy ({measured['disagreement']:.1%} between passes)" if measured["noisy"] else ""
    for split, figures in content["by_split"].items():
        lines += ["", f"{setting}, search '{name}', {split} images"]
        lines.append(f"  {'contender':20} {'mean':>7} {'error':>6} {'best':>7}   ours minus it: mean (error) [95%]")
        for contender, accuracy in figures["accuracy"].items():
            error = "" if accuracy["error"] is None else f"{accuracy['error']:.2%}"
            gain = _told(figures["ours_minus"].get(contender))
            lines.append(f"  {contender:20} {accuracy['mean']:7.2%} {error:>6} {accuracy['best']:7.2%}   {gain}")
        equal = figures["equal_cost"]
        best = f"best of {equal['count']} random"
        lines.append(f"  {best:20} {equal['mean']:7.2%} {'':6} {'':7}   {_told(equal['gain'])}")
        taus = ", ".join("-" if tau is None else f"{tau:+.2f}" for tau in figures["kendall_tau"])
        lines.append(f"  ours among the random children: percentile {figures['percentile']:.0f}; Kendall tau {taus}")
    if measured["out_of_reach"]:
        told = ", ".join(f"{key} ({ratio:.2f} times)" for key, ratio in measured["out_of_reach"].items())
        lines.append(f"  left out, as no scale leads to the budget: {told}")
    lines.append(
        f"  latencies within {measured['largest_deviation']:.1%} of {measured['typical_ms']:.4f} ms{noisy};"
        f" a search costs {content['search_cost']:.2f} trainings; {content['core_minutes']['all']:.0f} core-minutes"
    )
    return lines


def _told(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:+.2%} ({found['standard_error']:.2%}) [{found['low']:+.2%}, {found['high']:+.2%}]"
