"""The picture of a search, for papers and pull requests: costs, entropy and gates over the epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dmask_mobile.report.charts.curves import option_text
from dmask_mobile.report.records import Curve, GateView, SearchHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6  # of the pictures of gates
WIDTH, TOP_HEIGHT, GATE_HEIGHT = 11.0, 3.2, 1.25  # inches
CHOSEN, OTHERS = "tab:blue", ("0.80", "0.90")


def draw_search(history: SearchHistory, title: str) -> Figure:
    """Expected cost as a share of each budget and mean entropy; below, the probabilities of each gate's options.

    The child's option is blue. For a space with very many gates, the last ones are left out, as in the report, and the
    title says so.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(history.gates) / COLUMNS)
    figure = Figure(figsize=(WIDTH, TOP_HEIGHT + rows * GATE_HEIGHT), layout="constrained")
    heights = [TOP_HEIGHT, *([rows * GATE_HEIGHT] if rows else [])]
    top, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left = len(history.gates) < history.num_gates
    figure.suptitle(f"{title}: {len(history.gates)} of {history.num_gates} gates" if left else title, fontsize=10)
    costs, entropy = top.subplots(1, 2)
    _draw_curves(costs, history, history.expected, "expected cost / budget")
    costs.axhline(1.0, color="black", linewidth=0.8, linestyle="--", label="budget")
    costs.legend(fontsize=8)
    _draw_curves(entropy, history, history.entropy, "mean gate entropy (1 undecided)")
    entropy.set_ylim(0, 1.05)
    if rows:
        places = below[0].subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, gate in zip(places, history.gates, strict=False):
            _draw_gate(axes, history, gate)
        for axes in places[len(history.gates) :]:
            axes.set_axis_off()
    return figure


def _draw_curves(axes: Axes, history: SearchHistory, curves: tuple[Curve, ...], label: str) -> None:
    for curve in curves:
        values = [math.nan if value is None else value for value in curve.values]
        axes.plot(history.epochs, values, marker="o", markersize=2.5, linewidth=1.2, label=curve.name)
    if history.warmup_epochs and history.warmup_epochs <= history.epochs[-1]:
        axes.axvline(history.warmup_epochs, color="grey", linewidth=0.7, linestyle=":")
    axes.set_xlabel("epoch (dotted: the gates begin to learn)" if history.warmup_epochs else "epoch", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=8)


def _draw_gate(axes: Axes, history: SearchHistory, gate: GateView) -> None:
    """Draws the probabilities of the options, stacked, the first one at the bottom."""
    shares = [[0.0 if value is None else value for value in values] for values in gate.probabilities]
    colours = [CHOSEN if option == gate.chosen else OTHERS[option % 2] for option in range(len(shares))]
    axes.stackplot(history.epochs, shares, colors=colours)
    chosen = "" if gate.chosen is None else f" = {option_text(gate, gate.chosen)}"
    axes.set_title(f"{gate.name}{chosen}", fontsize=6.5, pad=2)
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    axes.tick_params(labelsize=6)
