"""`CostEstimate`: a predicted number with its unit, its spread and its origin."""

from __future__ import annotations

from pydantic import Field

from dmask_mobile.records.base import Record


class CostEstimate(Record):
    """The cost of one child according to a cost model.

    ``spread`` is one standard deviation in the same unit, 0 for exact counts. The two ``num_`` fields count the blocks
    whose value was computed or measured, and the blocks whose value was predicted from others.
    """

    cost: str
    value: float
    unit: str
    spread: float = Field(default=0.0, ge=0)
    num_measured: int = Field(default=0, ge=0)
    num_predicted: int = Field(default=0, ge=0)
