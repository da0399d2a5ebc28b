"""`Decision` and `Choice`: what a search decides, and one outcome of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt

from dmask_mobile.records.base import Record

DecisionKind = Literal[
    "resolution", "width", "expansion", "hidden_width", "kernel", "squeeze_excite", "squeeze_width", "skip"
]


class Decision(Record):
    """One gate of the supernet: its name and the values it chooses from, in rising order."""

    name: str
    kind: DecisionKind
    options: tuple[float, ...] = Field(min_length=1)

    def width(self, index: int) -> int:
        """Option ``index`` as an integer (for widths, kernels and resolutions)."""
        return int(self.options[index])


class Choice(Record):
    """One option index for each decision of a space, in the order of ``SearchSpace.decisions``."""

    indices: tuple[NonNegativeInt, ...]

    def __getitem__(self, decision: int) -> int:
        return self.indices[decision]
