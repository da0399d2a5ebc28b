"""`Correction`, the line from a sum over blocks to the cost of a network; `CostRange`, the range of a space."""

from __future__ import annotations

from typing import NamedTuple


class Correction(NamedTuple):
    """``total = offset + scale * sum of the blocks``, scale > 0: one line for each resolution."""

    offset: float = 0.0
    scale: float = 1.0

    def apply(self, total: float) -> float:
        """The corrected value of a sum over blocks."""
        return self.offset + self.scale * total

    def invert(self, value: float) -> float:
        """The sum over blocks whose corrected value is ``value``."""
        return (value - self.offset) / self.scale


class CostRange(NamedTuple):
    """The lowest and the highest cost of the children of a space."""

    low: float
    high: float
