"""`Chart` and `Mark`: a picture as plain records; `Axis`: the positions of numbers in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

Tag = Literal["rect", "circle", "line", "path", "text"]


class Mark(NamedTuple):
    """One SVG element.

    ``css``: its classes, which set its colours in both themes. ``text``: the content of a text element. ``tip``: the
    text shown on hover or keyboard focus.
    """

    tag: Tag
    css: str
    attributes: Mapping[str, str | float]
    text: str = ""
    tip: str = ""


class Legend(NamedTuple):
    """The meaning of a colour."""

    css: str
    text: str


class Chart(NamedTuple):
    """A picture; ``title`` and ``description`` describe it to readers who cannot see it."""

    title: str
    description: str
    width: float
    height: float
    marks: tuple[Mark, ...]
    legend: tuple[Legend, ...] = ()

    @property
    def is_interactive(self) -> bool:
        """Whether any mark has a tip."""
        return any(mark.tip for mark in self.marks)


def short(value: float) -> float:
    """A coordinate rounded to one decimal, because a page contains thousands of them."""
    return round(value, 1)


def number(value: float) -> str:
    """A number on an axis.

    >>> number(0.05), number(1500.0), number(20_000_000.0)
    ('0.05', '1,500', '20 M')
    """
    for power, sign in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= power:
            return f"{value / power:g} {sign}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


class Axis(NamedTuple):
    """Maps ``low`` to ``start`` and ``high`` to ``end`` (coordinates)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The coordinate of a value; values beyond the axis are drawn at its ends."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return short(self.start + min(1.0, max(0.0, share)) * (self.end - self.start))

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers between both ends, about ``most`` of them."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span / most))
        step = next(power * times for times in (1, 2, 5, 10) if power * times * most >= span * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [round(step * place, 12) for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def span_of(values: Sequence[float], *, from_zero: bool = False) -> tuple[float, float]:
    """The lowest and the highest value with a margin; a span of 0 is widened."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(0.0, low) if from_zero else low
    room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return (low if from_zero and low == 0 else low - room), high + room


def frame(x: Axis, y: Axis, x_label: str, y_label: str, x_ticks: Sequence[float] | None = None) -> Iterator[Mark]:
    """Grid lines, ticks and labels of both axes."""
    for tick in y.ticks():
        at = y.at(tick)
        yield Mark("line", "grid", {"x1": x.start, "x2": x.end, "y1": at, "y2": at})
        yield Mark("text", "tick end", {"x": short(x.start - 6), "y": short(at + 4)}, number(tick))
    for tick in x.ticks() if x_ticks is None else x_ticks:
        yield Mark("text", "tick middle", {"x": x.at(tick), "y": short(y.start + 16)}, number(tick))
    yield Mark("line", "axis", {"x1": x.start, "x2": x.end, "y1": y.start, "y2": y.start})
    yield Mark("text", "label middle", {"x": short((x.start + x.end) / 2), "y": short(y.start + 33)}, x_label)
    yield Mark("text", "label start", {"x": 2, "y": short(y.end - 9)}, y_label)


def polyline(points: Sequence[tuple[float, float] | None]) -> str:
    """The path through points; None makes a gap."""
    parts, is_drawing = [], False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if is_drawing else 'M'}{point[0]:g} {point[1]:g}")
        is_drawing = point is not None
    return "".join(parts)
