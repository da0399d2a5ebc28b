"""Charts of quantities and of the gates over the epochs of a search."""

from __future__ import annotations

from collections.abc import Sequence

from dmask_mobile.report.charts.marks import Axis, Chart, Legend, Mark, frame, polyline, short, span_of
from dmask_mobile.report.records import Curve, GateView, SearchHistory

WIDTH, HEIGHT = 350, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 26, 42
GATE_WIDTH, GATE_HEIGHT = 150, 54
MAX_COLOURS = 4
FEW_EPOCHS = 25  # with more epochs, dots are smaller


def curve_chart(
    title: str, history: SearchHistory, curves: Sequence[Curve], unit: str, *, line_at: float | None = None
) -> Chart | None:
    """Curves over epochs; None if no values are known.

    Args:
        title: the title of the picture.
        history: the history with the epochs.
        curves: the quantities.
        unit: the unit of the vertical axis.
        line_at: a value at which a line is drawn, such as the budget.
    """
    known = [value for curve in curves for value in curve.values if value is not None]
    if not known:
        return None
    epochs = history.epochs
    x = Axis(epochs[0], max(epochs[-1], epochs[0] + 1), LEFT, WIDTH - RIGHT)
    low, high = span_of(
        [*known, *([] if line_at is None else [line_at])], from_zero=min(known) >= 0 and line_at is None
    )
    y = Axis(low, high, HEIGHT - BOTTOM, TOP)
    marks = list(frame(x, y, "epoch", unit, [tick for tick in x.ticks() if tick == int(tick)]))
    if history.warmup_epochs and epochs[0] < history.warmup_epochs <= epochs[-1]:
        at = x.at(history.warmup_epochs)
        marks.append(Mark("line", "note-line", {"x1": at, "x2": at, "y1": y.start, "y2": y.end}))
        marks.append(Mark("text", "tick start", {"x": short(at + 4), "y": short(y.end + 9)}, "gates learn"))
    if line_at is not None:
        marks.append(Mark("line", "limit", {"x1": x.start, "x2": x.end, "y1": y.at(line_at), "y2": y.at(line_at)}))
    for place, curve in enumerate(curves):
        colour = f"s{place % MAX_COLOURS}"
        points = [
            None if value is None else (x.at(epoch), y.at(value))
            for epoch, value in zip(epochs, curve.values, strict=True)
        ]
        marks.append(Mark("path", f"curve {colour}", {"d": polyline(points)}))
        marks += [
            Mark(
                "circle",
                f"dot {colour}",
                {"cx": point[0], "cy": point[1], "r": 3 if len(epochs) <= FEW_EPOCHS else 1.8},
                tip=f"epoch {epoch}, {curve.name}: {value:.4g} {unit}".rstrip(),
            )
            for epoch, value, point in zip(epochs, curve.values, points, strict=True)
            if point is not None
        ]
    legend = tuple(Legend(f"s{place % MAX_COLOURS}", curve.name) for place, curve in enumerate(curves))
    description = f"{', '.join(curve.name for curve in curves)} over epochs {epochs[0]} to {epochs[-1]}, in all from"
    description += f" {min(known):.4g} to {max(known):.4g} {unit}"
    if line_at is not None:
        legend = (*legend, Legend("limit", "budget"))
    return Chart(title, description.strip(), WIDTH, HEIGHT, tuple(marks), legend)


def gate_chart(gate: GateView, history: SearchHistory) -> Chart:
    """The probability of each option over the epochs, stacked; the chosen option is highlighted."""
    epochs = history.epochs
    x = Axis(epochs[0], max(epochs[-1], epochs[0] + 1), 0, GATE_WIDTH)
    below, marks = [0.0] * len(epochs), []
    for option, values in enumerate(gate.probabilities):
        known = [0.0 if value is None else value for value in values]
        above = [low + value for low, value in zip(below, known, strict=True)]
        edge = [(x.at(epoch), _height(value)) for epoch, value in zip(epochs, above, strict=True)]
        base = [(x.at(epoch), _height(value)) for epoch, value in zip(epochs, below, strict=True)]
        css = "chosen" if option == gate.chosen else f"other o{option % 2}"
        marks.append(Mark("path", f"area {css}", {"d": f"{polyline([*edge, *reversed(base)])}Z"}))
        below = above
    return Chart(f"{gate.name} over the epochs", gate_sentence(gate), GATE_WIDTH, GATE_HEIGHT, tuple(marks))


def _height(share: float) -> float:
    return short(GATE_HEIGHT * (1 - min(1.0, max(0.0, share))))


def option_text(gate: GateView, option: int) -> str:
    """The text for an option: on or off for gates that switch a part on or off."""
    value = gate.options[option]
    if gate.kind in ("squeeze_excite", "skip"):
        return "yes" if value else "no"
    return f"{value:g}"


def gate_sentence(gate: GateView) -> str:
    """The final probabilities of the gate, and the chosen option."""
    shares = ", ".join(
        f"{option_text(gate, option)} {'unknown' if share is None else f'{share:.0%}'}"
        for option, share in enumerate(gate.last)
    )
    chosen = "" if gate.chosen is None else f"; the child has {option_text(gate, gate.chosen)}"
    return f"probabilities at the end: {shares}{chosen}"
