"""The results of a sweep as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from dmask_mobile.cli.console import cell
from dmask_mobile.quantities import quantity

if TYPE_CHECKING:
    from dmask_mobile.records.sweep import SweepRecord


def front_table(record: SweepRecord) -> Table:
    """A table of the points on the Pareto front, the cheapest first."""
    costs = list(record.units)
    table = Table(title=f"Pareto front of {len(record.points)} runs", title_justify="left")
    for cost in costs:
        kind = "measured" if cost in record.measured_costs else "predicted"
        table.add_column(cell(f"{cost}, {kind}"), justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("budget", justify="right")
    table.add_column("run")
    front = [point for point in record.points if point.on_front]
    for point in sorted(front, key=lambda point: [record.cost_of(point, cost) for cost in costs]):
        table.add_row(
            *(cell(quantity(record.cost_of(point, cost), record.units[cost])) for cost in costs),
            cell(f"{point.accuracy:.2%}"),
            cell(_budgets(point.budgets, record.units)),
            cell(point.run),
        )
    return table


def summary_table(record: SweepRecord) -> Table:
    """A table with mean and standard deviation over the seeds of each budget."""
    table = Table(title="by budget: mean and standard deviation over the seeds", title_justify="left")
    for column in ("budget", "seeds", "accuracy", *record.units):
        table.add_column(cell(column), justify="right")
    for summary in record.summaries:
        deviations = summary.cost_deviations or {}
        table.add_row(
            cell(_budgets(summary.budgets, record.units)),
            cell(summary.num_seeds),
            cell(_spread(f"{summary.accuracy_mean:.2%}", summary.accuracy_deviation, "share")),
            *(
                cell(_spread(quantity(mean, record.units[cost]), deviations.get(cost), record.units[cost]))
                for cost, mean in summary.cost_means.items()
            ),
        )
    return table


def _budgets(budgets: Mapping[str, float], units: Mapping[str, str]) -> str:
    return ", ".join(f"{cost} {quantity(limit, units[cost])}" for cost, limit in budgets.items())


def _spread(mean: str, deviation: float | None, unit: str) -> str:
    return mean if deviation is None else f"{mean} ± {quantity(deviation, unit)}"
