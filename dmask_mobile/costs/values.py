"""What a cost is made of besides its blocks: the line from a sum of blocks to a network, and the range of a space."""

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
        """The sum over blocks that the corrected value stands for."""
        return (value - self.offset) / self.scale


class CostRange(NamedTuple):
    """What the children of a space can cost."""

    low: float
    high: float
