"""The picture of a sweep: accuracy against cost, with a point for each run and the Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.pictures import save_picture
from dmask_mobile.records.sweep import SweepDesign, SweepRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_front(record: SweepRecord, design: SweepDesign, paths: tuple[Path, ...]) -> None:
    """Draws the accuracy of finished runs against the first cost, as PNG or SVG by the suffix of each path.

    With several costs, a point may be on the front because of another cost.

    Raises:
        DmaskError: in the same cases as `dmask_mobile.pictures.check_picture`.
    """
    figure = _figure(record, design)
    for path in paths:
        save_picture(figure, path)


def _figure(record: SweepRecord, design: SweepDesign) -> Figure:
    from matplotlib.figure import Figure

    cost = next(iter(design.budgets))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for seed in design.seeds:
        points = [point for point in record.points if point.seed == seed]
        axes.scatter(
            [record.cost_of(point, cost) for point in points],
            [100 * point.accuracy for point in points],
            s=28,
            label=f"seed {seed}",
        )
    front = sorted((record.cost_of(point, cost), 100 * point.accuracy) for point in record.points if point.on_front)
    costs, accuracies = [x for x, _ in front], [y for _, y in front]
    if len(design.budgets) == 1:
        axes.step(costs, accuracies, where="post", color="black", linewidth=1, label="Pareto front", zorder=0)
    else:
        axes.scatter(costs, accuracies, s=90, facecolors="none", edgecolors="black", label="on the Pareto front")
    for limit in design.budgets[cost]:
        axes.axvline(limit, color="grey", linewidth=0.6, linestyle=":", zorder=0)
    kind = "measured" if cost in record.measured_costs else "predicted"
    unit = record.units[cost]
    axes.set_xlabel(f"{kind} {cost}" + (f" ({unit})" if unit not in ("", cost) else "") + "; dotted: budgets")
    axes.set_ylabel("accuracy on the validation images (%)")
    axes.set_title(f"{design.space.name}: {len(record.points)} of {record.num_runs} runs", fontsize=10)
    axes.legend(fontsize=8)
    return figure
