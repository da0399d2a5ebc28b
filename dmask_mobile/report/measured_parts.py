"""Rows with bars: the latency of each block, and numerics by format."""

from __future__ import annotations

from typing import NamedTuple

from dmask_mobile.quantities import quantity
from dmask_mobile.records.verification import Check
from dmask_mobile.report.charts.marks import Chart, short
from dmask_mobile.report.charts.scatter import prediction_chart
from dmask_mobile.report.records import RunView, TableView
from dmask_mobile.report.verdicts import measured_latency

NUMERICS = ("max error", "mean error", "cosine", "SNR", "top-1 agreement", "accuracy", "golden pair")


class LatencyRow(NamedTuple):
    """The latency of a block with its bars, in percent of the longest bar."""

    name: str
    label: str
    predicted: str
    share: str
    alone: str
    predicted_at: float
    alone_at: float | None


class LatencyPart(NamedTuple):
    """The latency of each block according to one table."""

    table: TableView
    rows: tuple[LatencyRow, ...]
    chart: Chart | None
    total: str
    measured: str


class Cell(NamedTuple):
    """A measured figure of an artifact with its limit; ``used_at``: the figure in percent of the limit."""

    value: str
    limit: str
    verdict: str
    used_at: float | None = None


class NumericsRow(NamedTuple):
    """The numerics of one artifact in the order of the columns."""

    label: str
    cells: tuple[Cell | None, ...]


def latency_part(run: RunView, table: TableView) -> LatencyPart:
    """The latency of each block according to a table, and what the whole network adds to the sum of its blocks."""
    offset = table.offset_ms or 0.0
    total = table.predicted_ms or 0.0
    longest = max([abs(offset), *(b.predicted_ms for b in table.blocks), *(b.alone_ms or 0 for b in table.blocks)])
    longest = longest or 1.0

    def at(ms: float) -> float:
        return short(100 * max(0.0, ms) / longest)

    def share(ms: float) -> str:
        return f"{ms / total:.0%}" if total > 0 else "-"

    rows = [
        LatencyRow(
            view.name,
            view.block.describe(),
            quantity(latency.predicted_ms, "ms"),
            share(latency.predicted_ms),
            quantity(latency.alone_ms, "ms"),
            at(latency.predicted_ms),
            None if latency.alone_ms is None else at(latency.alone_ms),
        )
        for view, latency in zip(run.blocks, table.blocks, strict=True)
    ]
    between = (
        "what whole networks take beyond the sum of their blocks"
        if offset >= 0
        else "what whole networks save compared with the sum of their blocks"
    )
    rows.append(LatencyRow("beyond the blocks", between, quantity(offset, "ms"), share(offset), "-", at(offset), None))
    line = measured_latency(run, table.cost)
    measured_ms = line.measured if line is not None else None
    return LatencyPart(
        table,
        tuple(rows),
        prediction_chart(table, measured_ms),
        f"{quantity(table.predicted_ms, 'ms')} ± {quantity(table.spread_ms, 'ms')}",
        quantity(measured_ms, "ms"),
    )


def numerics_rows(run: RunView) -> tuple[tuple[str, ...], tuple[NumericsRow, ...]]:
    """The compared quantities, and the figures of each artifact."""
    found = {artifact.label: {check.quantity: check for check in artifact.numerics} for artifact in run.artifacts}
    names = dict.fromkeys(name for checks in found.values() for name in checks)
    columns = tuple(sorted(names, key=lambda name: (_order(name), name)))
    rows = tuple(
        NumericsRow(label, tuple(_cell(checks[name]) if name in checks else None for name in columns))
        for label, checks in found.items()
        if checks
    )
    return columns, rows


def _order(name: str) -> int:
    return next((place for place, known in enumerate(NUMERICS) if name.startswith(known)), len(NUMERICS))


def _cell(check: Check) -> Cell:
    return Cell(quantity(check.measured, check.unit), check.what_is_allowed, check.verdict, _used(check))


def _used(check: Check) -> float | None:
    """An error in percent of its limit; None for figures without an upper limit."""
    try:
        limit = float(check.allowed)
    except ValueError:
        return None
    if check.measured is None or check.predicted is None or not limit > 0:
        return None
    return short(min(100.0, 100 * abs(check.measured - check.predicted) / limit))
