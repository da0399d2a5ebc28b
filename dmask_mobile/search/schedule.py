"""Schedules of the search over fractions of its length."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from dmask_mobile.records.base import Record


class Schedule(Record):
    """Temperature and entropy over the epochs in which the gates learn.

    Temperature: falls geometrically from 5.0 to 0.087. This is FBNetV2's 5.0 * exp(-0.045 epoch) over 90 epochs,
    stretched to any length. Entropy: the target of the gates' normalized entropy falls from 1 (undecided) to
    ``last_entropy``. It reaches this value at the fraction ``decided_at`` of the search, so that the cost can settle at
    the budget afterwards (our addition).
    """

    first_temperature: PositiveFloat = 5.0
    last_temperature: PositiveFloat = 0.087
    last_entropy: float = Field(default=0.05, ge=0, lt=1)
    decided_at: float = Field(default=0.85, gt=0, le=1)

    def temperature(self, fraction: float) -> float:
        """The Gumbel temperature after ``fraction`` (0..1) of the search."""
        return float(self.first_temperature * (self.last_temperature / self.first_temperature) ** fraction)

    def entropy(self, fraction: float) -> float:
        """The target of the normalized entropy after ``fraction`` (0..1) of the search."""
        return 1 - (1 - self.last_entropy) * min(1.0, fraction / self.decided_at)
