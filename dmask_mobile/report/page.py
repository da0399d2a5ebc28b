"""`RunPage`: the pictures, rows and tiles of one run, ready for the templates, which only place them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dmask_mobile.quantities import quantity
from dmask_mobile.records.sweep import SweepPoint
from dmask_mobile.records.verification import Check
from dmask_mobile.report.charts.confusion import confusion_chart
from dmask_mobile.report.charts.curves import curve_chart, gate_chart, gate_sentence, option_text
from dmask_mobile.report.charts.marks import Chart, short
from dmask_mobile.report.charts.network import network_chart
from dmask_mobile.report.charts.scatter import MAX_POINTS, front_chart, prediction_chart, trade_off_chart
from dmask_mobile.report.records import AccuracyView, BudgetView, GateView, RunView, SweepView, TableView

NUMERICS = ("max error", "mean error", "cosine", "SNR", "top-1 agreement", "accuracy", "golden pair")


class Tile(NamedTuple):
    """One large figure of the verdict; ``state`` colours it."""

    label: str
    value: str
    note: str
    state: str = ""


class BudgetRow(NamedTuple):
    """A budget with its bar; coordinates are percentages of the bar's width, None for what is not known."""

    budget: BudgetView
    limit_at: float
    predicted_at: float | None
    measured_at: float | None
    sentence: str


class LatencyRow(NamedTuple):
    """A block's latency with its bars, in percentages of the longest one."""

    name: str
    label: str
    predicted: str
    share: str
    alone: str
    predicted_at: float
    alone_at: float | None


class LatencyPart(NamedTuple):
    """Where the time goes by one table."""

    table: TableView
    rows: tuple[LatencyRow, ...]
    chart: Chart | None
    total: str
    measured: str


class Cell(NamedTuple):
    """A measured figure of an artifact with its limit; ``used_at``: how much of the limit it takes, in percent."""

    value: str
    limit: str
    verdict: str
    used_at: float | None = None


class NumericsRow(NamedTuple):
    """One artifact's numerics in the order of the columns."""

    label: str
    cells: tuple[Cell | None, ...]


class GatePicture(NamedTuple):
    """A gate, its picture and what it decided; ``place``: the block of the gate, ``what``: the rest of its name."""

    gate: GateView
    place: str
    what: str
    chart: Chart
    chosen: str
    sentence: str


class RunPage(NamedTuple):
    """One run as the page shows it; ``number`` keeps the names inside the page apart."""

    number: int
    run: RunView
    tiles: tuple[Tile, ...]
    wrong: tuple[tuple[Check, str], ...]
    checks: tuple[tuple[Check, str], ...]
    budgets: tuple[BudgetRow, ...]
    network: Chart
    latency: tuple[LatencyPart, ...]
    curves: tuple[Chart, ...]
    epoch_columns: tuple[str, ...]
    epochs: tuple[tuple[int, tuple[str, ...]], ...]
    gates: tuple[GatePicture, ...]
    numerics_columns: tuple[str, ...]
    numerics: tuple[NumericsRow, ...]
    accuracies: tuple[tuple[AccuracyView, Chart | None], ...]


def run_page(number: int, run: RunView) -> RunPage:
    """The page of one run."""
    judged = tuple(zip(run.checks, run.verdicts, strict=True))
    columns, numerics = _numerics(run)
    epoch_columns, epochs = _epochs(run)
    return RunPage(
        number=number,
        run=run,
        tiles=tuple(_tiles(run)),
        wrong=tuple((check, verdict) for check, verdict in judged if verdict in ("failed", "not verified")),
        checks=judged,
        budgets=tuple(map(_budget_row, run.budgets)),
        network=network_chart(run.blocks, next((table.blocks for table in run.tables if table.blocks), ())),
        latency=tuple(_latency(run, table) for table in run.tables if table.blocks),
        curves=tuple(_curves(run)),
        epoch_columns=epoch_columns,
        epochs=epochs,
        gates=tuple(_gates(run)),
        numerics_columns=columns,
        numerics=numerics,
        accuracies=tuple((found, confusion_chart(found)) for found in run.accuracies),
    )


def measured_latency(run: RunView, cost: str) -> Check | None:
    """The line of the artifact that was measured for a table's latency; of several the first."""
    lines = (check for artifact in run.artifacts for check in artifact.latency if check.quantity.startswith(cost))
    return next((check for check in lines if check.measured is not None), None)


def _tiles(run: RunView) -> Iterator[Tile]:
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


def _budget_row(budget: BudgetView) -> BudgetRow:
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


def _latency(run: RunView, table: TableView) -> LatencyPart:
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
        "what whole networks take beyond their blocks" if offset >= 0 else "what whole networks save on their blocks"
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


def _curves(run: RunView) -> Iterator[Chart]:
    history = run.history
    if history is None:
        return
    drawn = (
        curve_chart("Expected cost as a share of the budget", history, history.expected, "of the budget", line_at=1.0),
        curve_chart("λ, the price of each budget", history, history.multipliers, "λ"),
        curve_chart("Entropy of the gates", history, history.entropy, "1 undecided, 0 decided"),
        curve_chart("Accuracy of the supernet while it trains", history, history.accuracies, "share of images"),
    )
    yield from (chart for chart in drawn if chart is not None)


def _epochs(run: RunView) -> tuple[tuple[str, ...], tuple[tuple[int, tuple[str, ...]], ...]]:
    """The curves as a table: its columns and its rows."""
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


def _gates(run: RunView) -> Iterator[GatePicture]:
    if run.history is None:
        return
    for gate in run.history.gates:
        chosen = "" if gate.chosen is None else option_text(gate, gate.chosen)
        place, _, what = gate.name.rpartition(".")
        picture = gate_chart(gate, run.history)
        yield GatePicture(gate, place, what.replace("_", "-"), picture, chosen, gate_sentence(gate))


def _numerics(run: RunView) -> tuple[tuple[str, ...], tuple[NumericsRow, ...]]:
    """The quantities that were compared, and each artifact's figures."""
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
    """How much of its limit an error takes, in percent; None for figures that have no largest value."""
    try:
        limit = float(check.allowed)
    except ValueError:
        return None
    if check.measured is None or check.predicted is None or not limit > 0:
        return None
    return short(min(100.0, 100 * abs(check.measured - check.predicted) / limit))


class SweepPage(NamedTuple):
    """A sweep, its pictures, and its points with the most accurate first; each cost is measured or predicted."""

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
    """A cost that several trained runs have in common: the number, name, value and accuracy of each."""

    name: str
    unit: str
    values: tuple[tuple[int, str, float, float], ...]
    chart: Chart


def comparisons(runs: Sequence[RunView]) -> tuple[Comparison, ...]:
    """The costs that at least two trained runs have in common, latencies first; only like is put beside like."""
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
