"""The large figures and the budgets of a run, as shown in the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dmask_mobile.quantities import quantity
from dmask_mobile.report.charts.marks import short
from dmask_mobile.report.records import BudgetView, RunView
from dmask_mobile.report.verdicts import measured_latency


class Tile(NamedTuple):
    """One large figure of the verdict; ``state`` sets its colour."""

    label: str
    value: str
    note: str
    state: str = ""


class BudgetRow(NamedTuple):
    """A budget with its bar; coordinates are percentages of the bar's width, None if unknown."""

    budget: BudgetView
    limit_at: float
    predicted_at: float | None
    measured_at: float | None
    sentence: str


def tiles_of(run: RunView) -> Iterator[Tile]:
    """Latency of each table, accuracy, multiply-adds, parameters and exported formats."""
    for table in run.tables:
        line = measured_latency(run, table.cost)
        predicted = f"predicted {quantity(table.predicted_ms, 'ms')}" if table.predicted_ms else "not predicted"
        where = f"{predicted}; {table.device}, {table.runtime}"
        if line is not None:
            yield Tile(f"{table.cost}, measured", quantity(line.measured, "ms"), where, line.verdict)
        elif table.predicted_ms is not None:
            yield Tile(f"{table.cost}, predicted", quantity(table.predicted_ms, "ms"), f"not measured; {where}")
    if run.accuracy is not None:
        note = run.accuracy_split
        if run.accuracy_interval is not None:
            note += f"; 95% interval {run.accuracy_interval[0]:.1%} to {run.accuracy_interval[1]:.1%}"
        yield Tile("accuracy, top-1", f"{run.accuracy:.1%}", note)
    else:
        yield Tile("accuracy, top-1", "-", "not trained yet")
    yield Tile("multiply-adds", _large(run.macs), f"{run.macs:,} at {run.resolution} px")
    yield Tile("parameters", _large(run.params), f"{run.params:,} weights; {run.num_classes:,} classes")
    formats = ", ".join(artifact.label for artifact in run.artifacts)
    sizes = ", ".join(quantity(artifact.size_bytes, "bytes") for artifact in run.artifacts)
    yield Tile("exported", f"{len(run.artifacts)}", f"{formats}; {sizes}" if formats else "nothing yet")


def _large(value: int) -> str:
    """A count with at most three digits.

    >>> _large(2_340_000), _large(512)
    ('2.34 M', '512')
    """
    for power, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {sign}"
    return str(value)


def budget_row(budget: BudgetView) -> BudgetRow:
    """A budget with a bar that compares the predicted and the measured value with its limit."""
    known = [value for value in (budget.limit, budget.predicted, budget.measured) if value is not None]
    most = 1.15 * max(known)

    def at(value: float | None) -> float | None:
        return None if value is None else short(100 * max(0.0, value) / most)

    parts = [f"limit {quantity(budget.limit, budget.unit)}"]
    for word in ("predicted", "measured"):
        value = getattr(budget, word)
        if value is not None:
            parts.append(f"{word} {quantity(value, budget.unit)} ({value / budget.limit:.0%} of it)")
    return BudgetRow(
        budget, at(budget.limit) or 0.0, at(budget.predicted), at(budget.measured), f"{budget.cost}: {', '.join(parts)}"
    )
