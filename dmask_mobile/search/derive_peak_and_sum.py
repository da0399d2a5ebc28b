"""The best child within a budget for a sum plus a weighted peak (`costs.peak_and_sum`).

Children are divided by their peak. Those with a peak between ``low`` and ``high`` have a sum of at most
``budget - factor * low``, and no block above ``high``. The best child under these two limits is found as for other
budgets, and no child of this part has a higher score. If it exceeds the budget itself, the part is divided at its own
peak, which excludes it from both halves. The part with the highest score comes first, so the first child within the
budget is the best one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.peak_and_sum import PeakAndSum
from dmask_mobile.errors import DmaskError
from dmask_mobile.search.derive import Derived

MAX_PARTS = 200
ROUNDING = 1e-12
"""Two sums of the same floats in a different order have a smaller relative difference."""

Best = Callable[[float, float], Derived]


class _Part(NamedTuple):
    """Children with peaks from ``low`` to ``high``, and the best one by the limits of this part."""

    low: float
    high: float
    best: Derived


def derive_peak_and_sum(best: Best, cost: PeakAndSum, limit: float) -> Derived:
    """The best child whose ``cost`` is at most ``limit``. It is exact if ``best`` is; otherwise its gap is stated.

    Args:
        best: a function of a limit for the sum and a limit for the peak, which returns the best child within both and
            within all other budgets.
        cost: the cost.
        limit: its budget.

    Raises:
        DmaskError: if no child within the budgets was found.
    """
    order, queue = itertools.count(), list[tuple[float, int, _Part]]()

    def add(low: float, high: float) -> None:
        """Adds the children with peaks in this range, if any are within the limits."""
        most = limit * (1 - ROUNDING) - cost.factor * low
        if low > high or most <= 0:
            return
        try:
            found = best(most, high)
        except DmaskError:
            return
        heapq.heappush(queue, (-(found.score + found.gap), next(order), _Part(low, high, found)))

    add(*cost.peak.reachable())
    for _ in range(MAX_PARTS):
        if not queue:
            break
        bound, _, part = heapq.heappop(queue)
        choice = part.best.choice
        if cost.cost(choice) <= limit:
            return part.best._replace(gap=max(0.0, -bound - part.best.score))
        peak = cost.peak.cost(choice)
        add(part.low, float(np.nextafter(peak, 0.0)))
        add(peak, part.high)
    low, high = cost.reachable()
    raise DmaskError(
        f"found no child of '{cost.space.name}' with {cost.name} <= {limit:g} {cost.unit} within the other budgets",
        f"the space reaches {low:.4g} to {high:.4g} {cost.unit}; raise one of the budgets",
    )
