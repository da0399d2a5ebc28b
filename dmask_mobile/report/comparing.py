"""Comparisons of several runs: the runs of a sweep, and the runs of one report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dmask_mobile.quantities import quantity
from dmask_mobile.records.sweep import SweepPoint
from dmask_mobile.report.charts.marks import Chart
from dmask_mobile.report.charts.scatter import MAX_POINTS, front_chart, trade_off_chart
from dmask_mobile.report.records import RunView, SweepView
from dmask_mobile.report.verdicts import measured_latency


class SweepPage(NamedTuple):
    """A sweep, its pictures, and its points, the most accurate first; each cost is measured or predicted."""

    sweep: SweepView
    charts: tuple[Chart, ...]
    points: tuple[tuple[SweepPoint, tuple[str, ...]], ...]


def sweep_page(sweep: SweepView) -> SweepPage:
    """The page of one sweep."""
    found = sweep.found
    charts = (front_chart(found, cost) for cost in found.units)
    points = sorted(found.points, key=lambda point: (not point.on_front, -point.accuracy))[:MAX_POINTS]
    return SweepPage(
        sweep,
        tuple(chart for chart in charts if chart is not None),
        tuple(
            (point, tuple(quantity(found.cost_of(point, cost), unit) for cost, unit in found.units.items()))
            for point in points
        ),
    )


class Comparison(NamedTuple):
    """A cost that several trained runs have, with the number, name, value and accuracy of each run."""

    name: str
    unit: str
    values: tuple[tuple[int, str, float, float], ...]
    chart: Chart


def comparisons(runs: Sequence[RunView]) -> tuple[Comparison, ...]:
    """The costs that at least two trained runs have, latencies first; only comparable values are compared."""
    costs: dict[tuple[str, str], list[tuple[int, str, float, float]]] = {}
    for number, run in enumerate(runs, start=1):
        for name, unit, value in _costs(run):
            if run.accuracy is not None:
                costs.setdefault((name, unit), []).append((number, run.name, value, run.accuracy))
    found = [(name, unit, values) for (name, unit), values in costs.items() if len(values) > 1]
    return tuple(
        Comparison(name, unit, tuple(values), trade_off_chart(name, unit, values))
        for name, unit, values in sorted(found, key=lambda cost: cost[1] != "ms")
    )


def _costs(run: RunView) -> Iterator[tuple[str, str, float]]:
    for table in run.tables:
        where = f"{table.device}, {table.runtime}, {table.precision}"
        line = measured_latency(run, table.cost)
        if line is not None and line.measured is not None:
            yield f"measured latency on {where}", "ms", line.measured
        if table.predicted_ms is not None:
            yield f"predicted latency on {where}", "ms", table.predicted_ms
    yield "multiply-adds", "macs", run.macs
    yield "parameters", "params", run.params
