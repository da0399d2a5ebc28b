"""The curves and gates of a search as pictures and tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dmask_mobile.report.charts.curves import curve_chart, gate_chart, gate_sentence, option_text
from dmask_mobile.report.charts.marks import Chart
from dmask_mobile.report.records import GateView, RunView


class GatePicture(NamedTuple):
    """A gate, its picture and its decision; ``place``: the block of the gate; ``what``: the rest of its name.

    ``preferred``: the most likely option, if the child has another one, for example because of its budget.
    """

    gate: GateView
    place: str
    what: str
    chart: Chart
    chosen: str
    preferred: str
    sentence: str


def curves_of(run: RunView) -> Iterator[Chart]:
    """The pictures over the epochs of a search; pictures without known values are left out."""
    history = run.history
    if history is None:
        return
    drawn = (
        curve_chart("Expected cost as a share of the budget", history, history.expected, "of the budget", line_at=1.0),
        curve_chart("λ, the weight of each budget", history, history.multipliers, "λ"),
        curve_chart("Entropy of the gates", history, history.entropy, "1 undecided, 0 decided"),
        curve_chart("Accuracy of the supernet while it trains", history, history.accuracies, "share of images"),
    )
    yield from (chart for chart in drawn if chart is not None)


def epoch_rows(run: RunView) -> tuple[tuple[str, ...], tuple[tuple[int, tuple[str, ...]], ...]]:
    """The curves as a table: columns and rows."""
    history = run.history
    if history is None:
        return (), ()
    named = (
        *((f"{curve.name} / budget", curve) for curve in history.expected),
        *((f"λ {curve.name}", curve) for curve in history.multipliers),
        *((curve.name, curve) for curve in history.entropy),
        *((f"accuracy, {curve.name}", curve) for curve in history.accuracies),
    )
    values = zip(*(map(_figure, curve.values) for _, curve in named), strict=True)
    return tuple(name for name, _ in named), tuple(zip(history.epochs, values, strict=True))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def gate_pictures(run: RunView) -> Iterator[GatePicture]:
    """A picture of each gate with several options."""
    if run.history is None:
        return
    for gate in run.history.gates:
        chosen = "" if gate.chosen is None else option_text(gate, gate.chosen)
        place, _, what = gate.name.rpartition(".")
        picture = gate_chart(gate, run.history)
        words = what.replace("_", "-")
        yield GatePicture(gate, place, words, picture, chosen, _preferred(gate), gate_sentence(gate))


def _preferred(gate: GateView) -> str:
    likeliest = max(range(len(gate.last)), key=lambda option: gate.last[option] or 0.0)
    known = gate.chosen is not None and gate.last[likeliest] is not None
    return option_text(gate, likeliest) if known and likeliest != gate.chosen else ""
