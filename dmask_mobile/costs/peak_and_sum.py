"""A cost that is a sum over blocks plus a share of the highest block: the memory that a whole network takes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dmask_mobile.costs.chain import ChainCost, digest_of, lowest_path
from dmask_mobile.costs.memory import SpacePeak
from dmask_mobile.costs.values import CostRange
from dmask_mobile.records.choice import Choice


class PeakAndSum:
    """``total + factor * peak`` of every child of a space; satisfies `costs.model.SpaceCost`.

    ``expected`` is a lower bound of the expectation, as that of `SpacePeak`, and exact at one-hot gates.

    Args:
        total: the sum.
        peak: the peak; its values are >= 0.
        factor: the weight of the peak, >= 0.
        name: the name that budgets use.
        unit: the unit of the cost.
    """

    def __init__(self, total: ChainCost, peak: SpacePeak, factor: float, name: str, unit: str) -> None:
        self.space = total.space
        self.total = total
        self.peak = peak
        self.factor = factor
        self.name = name
        self.unit = unit

    def digest(self) -> str:
        """A digest that identifies the costs of all children."""
        return digest_of(self.peak.blocks, f"{self.total.digest()} {self.factor!r}")

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The cost under the gates, a differentiable float64 scalar; see above."""
        return self.total.expected(probabilities) + self.factor * self.peak.expected(probabilities)

    def cost(self, choice: Choice) -> float:
        """The cost of one child."""
        return self.total.cost(choice) + self.factor * self.peak.cost(choice)

    def reachable(self) -> CostRange:
        """The lowest cost of any child, and a value that no child exceeds."""
        low = min(self._lowest_at(resolution) for resolution in range(len(self.total.corrections)))
        return CostRange(low, self.total.reachable().high + self.factor * self.peak.reachable().high)

    def _lowest_at(self, resolution: int) -> float:
        """The lowest cost at one resolution: ranges of peaks are divided as long as they can contain a lower one."""
        sums = [block.values[resolution] for block in self.total.blocks]
        peaks = [block.values[resolution] for block in self.peak.blocks]
        limits = np.unique(np.concatenate([values.ravel() for values in peaks]))
        limits = limits[limits >= lowest_path(self.space, peaks, np.maximum)]

        @functools.cache
        def lowest_sum(place: int) -> float:
            """The lowest sum of the children whose peak is at most ``limits[place]``."""
            within = [np.where(peak <= limits[place], each, np.inf) for peak, each in zip(peaks, sums, strict=True)]
            return self.total.corrections[resolution].apply(lowest_path(self.space, within))

        lowest, ranges = lowest_sum(0) + self.factor * limits[0], [(0, len(limits) - 1)]
        while ranges:  # of peaks above the first of two limits, up to the second
            first, last = ranges.pop()
            if first < last and lowest_sum(last) + self.factor * limits[first + 1] < lowest:
                middle = (first + 1 + last) // 2
                lowest = min(lowest, lowest_sum(middle) + self.factor * limits[middle])
                ranges += [(middle, last), (first, middle - 1)]
        return float(lowest)
