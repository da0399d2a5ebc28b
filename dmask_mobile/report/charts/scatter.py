"""Scatter plots: predicted against measured latencies, and accuracy against cost of several runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dmask_mobile.quantities import quantity
from dmask_mobile.records.sweep import SweepRecord
from dmask_mobile.report.charts.marks import Axis, Chart, Legend, Mark, frame, polyline, short, span_of
from dmask_mobile.report.records import TableView

WIDTH, HEIGHT = 420, 360
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 30, 46
NEAR = 0.10  # the relative difference between measured and predicted latency that a verification allows
MAX_COLOURS = 4
MAX_POINTS = 500  # of a sweep


def prediction_chart(table: TableView, measured_ms: float | None) -> Chart | None:
    """The whole networks of a table, each predicted from all others, and the child; None if there are no networks."""
    if not table.networks:
        return None
    own = [] if measured_ms is None or table.predicted_ms is None else [(measured_ms, table.predicted_ms)]
    points = [(network.measured_ms, network.predicted_ms) for network in table.networks]
    low, high = span_of([value for point in (*points, *own) for value in point])
    low = max(0.0, low)
    x, y = Axis(low, high, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    marks = list(frame(x, y, "measured (ms)", "predicted (ms)"))
    marks[:0] = [_band(x, y, low, high)]
    marks.append(Mark("line", "note-line", {"x1": x.at(low), "y1": y.at(low), "x2": x.at(high), "y2": y.at(high)}))
    sizes = sorted({network.resolution for network in table.networks})
    for network in table.networks:
        error = network.predicted_ms / network.measured_ms - 1
        marks.append(
            Mark(
                "circle",
                f"point s{sizes.index(network.resolution) % MAX_COLOURS}",
                {"cx": x.at(network.measured_ms), "cy": y.at(network.predicted_ms), "r": 4.5},
                tip=f"network at {network.resolution} px: predicted {quantity(network.predicted_ms, 'ms')},"
                f" measured {quantity(network.measured_ms, 'ms')} ({error:+.1%})",
            )
        )
    for measured, predicted in own:
        tip = f"this run: predicted {quantity(predicted, 'ms')}, measured {quantity(measured, 'ms')}"
        marks.append(Mark("path", "own", {"d": _diamond(x.at(measured), y.at(predicted))}, tip=tip))
    legend = [Legend(f"s{place % MAX_COLOURS}", f"{size} px") for place, size in enumerate(sizes)]
    legend += [Legend("own", "this run")] if own else []
    error_text = "unknown" if table.error is None else f"{table.error:.1%}"
    description = f"{len(points)} networks; mean error {error_text}; the shaded band is ±{NEAR:.0%}"
    return Chart(
        f"Predicted against measured latency, {table.name}",
        description,
        WIDTH,
        HEIGHT,
        tuple(marks),
        (*legend, Legend("band", f"±{NEAR:.0%}")),
    )


def _band(x: Axis, y: Axis, low: float, high: float) -> Mark:
    """The area of good predictions: between (1 - NEAR) and (1 + NEAR) times the measurement."""
    steps = [low + (high - low) * place / 12 for place in range(13)]
    upper = "L".join(f"{x.at(value):g} {y.at(value * (1 + NEAR)):g}" for value in steps)
    lower = "L".join(f"{x.at(value):g} {y.at(value * (1 - NEAR)):g}" for value in reversed(steps))
    return Mark("path", "band", {"d": f"M{upper}L{lower}Z"})


def _diamond(x: float, y: float, size: float = 8) -> str:
    return f"M{x:g} {short(y - size):g}L{short(x + size):g} {y:g}L{x:g} {short(y + size):g}L{short(x - size):g} {y:g}Z"


def front_chart(found: SweepRecord, cost: str) -> Chart | None:
    """Accuracy against one cost of a sweep, with the Pareto front; None for a sweep without finished runs.

    With several costs, a point may be on the front because of another cost, so no line is drawn.
    """
    points = sorted(found.points[:MAX_POINTS], key=lambda point: found.cost_of(point, cost))
    if not points:
        return None
    unit = found.units[cost]
    x_low, x_high = span_of([found.cost_of(point, cost) for point in points])
    x, y = Axis(max(0.0, x_low), x_high, LEFT, WIDTH - RIGHT), _percent_axis([point.accuracy for point in points])
    kind = "measured" if cost in found.measured_costs else "predicted"
    marks = list(frame(x, y, f"{kind} {cost} ({unit})", "accuracy (%)", x.ticks(4)))
    front = [(x.at(found.cost_of(point, cost)), y.at(100 * point.accuracy)) for point in points if point.on_front]
    if len(found.units) == 1:
        marks.append(Mark("path", "curve s0", {"d": polyline(_steps(front))}))
    for point in points:
        at = {"cx": x.at(found.cost_of(point, cost)), "cy": y.at(100 * point.accuracy)}
        tip = f"{point.run}: accuracy {point.accuracy:.2%}, {kind} {cost} {quantity(found.cost_of(point, cost), unit)}"
        css, radius = ("s0", 6) if point.on_front else ("k1", 4.5)
        marks.append(Mark("circle", f"point {css}", {**at, "r": radius}, tip=tip))
    description = f"{len(points)} of {found.num_runs} runs, {len(front)} of them on the Pareto front"
    legend = (Legend("s0", "on the Pareto front"), Legend("k1", "other runs"))
    return Chart(f"Accuracy against {cost}", description, WIDTH, HEIGHT, tuple(marks), legend)


def _percent_axis(shares: Sequence[float]) -> Axis:
    """The vertical axis for accuracies in 0..1, in percent; it shows a part of 0 to 100."""
    low, high = span_of([100 * share for share in shares])
    return Axis(max(0.0, low), min(100.0, high), HEIGHT - BOTTOM, TOP)


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float] | None]:
    """The corners of a step curve through points: each accuracy holds until the next cost."""
    corners: list[tuple[float, float] | None] = []
    for before, after in itertools.pairwise(points):
        corners += [before, (after[0], before[1])]
    return [*corners, *points[-1:]]


def trade_off_chart(name: str, unit: str, values: Sequence[tuple[int, str, float, float]]) -> Chart:
    """Accuracy against a cost.

    Args:
        name: the name of the cost.
        unit: the unit of the cost.
        values: the number, name, cost and accuracy in 0..1 of each network.
    """
    x_low, x_high = span_of([value for _, _, value, _ in values])
    x, y = Axis(max(0.0, x_low), x_high, LEFT, WIDTH - 2 * RIGHT), _percent_axis([accuracy for *_, accuracy in values])
    label = f"{name.partition(' on ')[0]} ({unit})" if unit == "ms" else name
    marks = list(frame(x, y, label, "accuracy (%)", x.ticks(4)))
    for number, run, value, accuracy in values:
        at = (x.at(value), y.at(100 * accuracy))
        tip = f"{number}. {run}: accuracy {accuracy:.2%}, {name} {quantity(value, unit)}"
        marks.append(Mark("circle", "point s0", {"cx": at[0], "cy": at[1], "r": 6}, tip=tip))
        marks.append(Mark("text", "tick start", {"x": short(at[0] + 9), "y": short(at[1] - 6)}, str(number)))
    description = "; ".join(f"{run}: {accuracy:.2%} at {quantity(value, unit)}" for _, run, value, accuracy in values)
    return Chart(f"Accuracy against {name}", description, WIDTH, HEIGHT, tuple(marks))
