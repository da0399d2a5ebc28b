"""The figures of a comparison, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from search_quality.entries import Split
from search_quality.estimates import difference

from own_network.plan import Plan
from own_network.whole import Compared


def summarized(plan: Plan, found: Sequence[Compared], tests: Sequence[float] | None) -> dict[str, Any]:
    """Every training, and by split the mean accuracies with what ours is above the others.

    Args:
        plan: the comparison.
        found: the networks, trained and measured.
        tests: the test accuracy of each; None while the test split is closed.
    """
    rows = [
        {
            "contender": each.job.contender,
            "seed": each.job.seed,
            "child": each.job.child.digest(),
            "resolution": each.job.child.resolution,
            "macs": each.macs,
            "ms": each.ms,
            "predicted_ms": each.predicted_ms,
            "epochs": each.trained["epochs"],
            "cpu_seconds": each.trained["cpu_seconds"],
            "val_before": each.trained["val_before"],
            "val": each.trained["val"],
            "test": None if tests is None else tests[number],
        }
        for number, each in enumerate(found)
    ]
    splits: tuple[Split, ...] = ("val",) if tests is None else ("val", "test")
    return {"rows": rows, "by_split": {split: _by_split(plan, rows, split) for split in splits}}


def _by_split(plan: Plan, rows: Sequence[dict[str, Any]], split: Split) -> dict[str, Any]:
    """Means, and ours minus others, paired by seed: the same seed is the same order of images."""
    values = {name: np.array([[row[split]] for row in rows if row["contender"] == name]) for name in plan.contenders}
    found: dict[str, Any] = {"accuracy": {name: float(own.mean()) for name, own in values.items()}, "ours_minus": {}}
    if "ours" in values and plan.seeds > 1:
        for name in values.keys() - {"ours"}:
            found["ours_minus"][name] = difference(values["ours"], values[name], paired=True).model_dump()
    return found


def printed(result: dict[str, Any]) -> str:
    """The trainings as a table, then what ours is above the others, in points with standard errors."""
    rows = result["rows"]
    reference = {row["seed"]: row["ms"] for row in rows if row["contender"] == "original"}
    lines = [
        f"{'contender':20}{'seed':>5}{'px':>5}{'Mmacs':>8}{'ms':>8}{'share':>7}{'predicted':>11}{'error':>8}"
        f"{'before':>8}{'epochs':>7}{'val':>7}{'test':>7}"
    ]
    for row in sorted(rows, key=lambda row: (row["contender"], row["seed"])):
        share = f"{row['ms'] / reference[row['seed']]:.3f}" if row["seed"] in reference else "-"
        predicted = row["predicted_ms"]
        error = f"{predicted:11.3f}{predicted / row['ms'] - 1:+8.1%}" if predicted else f"{'-':>11}{'-':>8}"
        test = "-" if row["test"] is None else f"{100 * row['test']:.1f}"
        lines.append(
            f"{row['contender']:20}{row['seed']:5}{row['resolution']:5}{row['macs'] / 1e6:8.1f}"
            f"{row['ms']:8.3f}{share:>7}"
            f"{error}{100 * row['val_before']:8.1f}"
            f"{row['epochs']:7}{100 * row['val']:7.1f}{test:>7}"
        )
    for row in result["int8"]:
        lines.append(
            f"int8, {row['format']}, seed {row['seed']}: {row['agreement']:.1%} of the answers as in fp32, "
            f"accuracy {row['val_int8']:.1%} instead of {row['val']:.1%}"
        )
    for split, found in result["by_split"].items():
        lines.append(f"\n{split}: ours {100 * found['accuracy'].get('ours', float('nan')):.2f}")
        for name, gain in sorted(found["ours_minus"].items()):
            mean, error = 100 * gain["mean"], 100 * gain["standard_error"]
            lines.append(f"  ours - {name:20}{mean:+6.2f} ± {error:.2f} points")
    return "\n".join(lines)
