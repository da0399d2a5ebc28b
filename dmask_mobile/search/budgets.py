"""`Budget`: a cost and the largest value of it that the child may have."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.chain import ChainCost, free_cost
from dmask_mobile.costs.custom import CustomSpaceCost, checked_cost
from dmask_mobile.costs.memory import SpacePeak
from dmask_mobile.costs.model import SpaceCost
from dmask_mobile.costs.peak_and_sum import PeakAndSum
from dmask_mobile.errors import DmaskError
from dmask_mobile.search.derive import FLOOR, Derived, PeakLimit, derive
from dmask_mobile.search.derive_custom import derive_custom
from dmask_mobile.search.derive_peak_and_sum import derive_peak_and_sum
from dmask_mobile.search.derive_several import derive_within_all


class Budget(NamedTuple):
    """A cost and the largest value of it that the child may have."""

    cost: SpaceCost
    limit: float


def checked_budgets(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """The same budgets, with custom costs wrapped so that their results are checked.

    Raises:
        DmaskError: for a custom cost that lacks a part of `SpaceCost`.
    """
    return tuple(Budget(checked_cost(budget.cost), budget.limit) for budget in budgets)


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Refuses a budget that no child can meet, and a budget that every child meets.

    Raises:
        DmaskError: naming the budget and the reachable range.
    """
    for cost, limit in checked_budgets(budgets):
        low, high = cost.reachable()
        if not low <= limit <= high:
            where = "below" if limit < low else "above"
            raise DmaskError(
                f"budget {cost.name}={limit:g} {cost.unit} is {where} what '{cost.space.name}' can reach:"
                f" {low:.4g} to {high:.4g} {cost.unit}",
                "choose a budget in that range or another space",
            )


def derive_within(budgets: Sequence[Budget], probabilities: Sequence[np.ndarray]) -> Derived:
    """The best child within every budget. It is exact for one sum over blocks; for several sums a gap is stated.

    A peak is not a sum: its budget excludes the blocks that exceed it, which is exact. So is a sum with a weighted
    peak (`search.derive_peak_and_sum`). Custom costs are none of these; they are checked for each child
    (`search.derive_custom`).

    Raises:
        DmaskError: if no child was found.
    """
    held = checked_budgets(budgets)
    custom = [(b.cost, b.limit) for b in held if isinstance(b.cost, CustomSpaceCost)]

    if not custom:
        return _derive_built_in(probabilities, held, FLOOR)
    best, without_floor = (functools.partial(_derive_built_in, budgets=held, floor=floor) for floor in (FLOOR, 0.0))
    return derive_custom(best, without_floor, custom, probabilities)


def is_quickly_exact(budgets: Sequence[Budget]) -> bool:
    """Whether `derive_within` finds the best child in a moment: one budget is of a sum, and others only of peaks."""
    sums, peaks = _sums_and_peaks(budgets)
    return len(sums) == 1 and len(sums) + len(peaks) == len(budgets)


def _sums_and_peaks(budgets: Sequence[Budget]) -> tuple[list[tuple[ChainCost, float]], tuple[PeakLimit, ...]]:
    """The budgets that are of a sum over blocks, and those that are of a peak."""
    sums = [(budget.cost, budget.limit) for budget in budgets if isinstance(budget.cost, ChainCost)]
    return sums, tuple(PeakLimit(b.cost, b.limit) for b in budgets if isinstance(b.cost, SpacePeak))


def _derive_built_in(probabilities: Sequence[np.ndarray], budgets: Sequence[Budget], floor: float) -> Derived:
    """The best child within every budget that is a sum, a peak, or a sum with a weighted peak."""
    for budget in budgets:
        if isinstance(budget.cost, PeakAndSum):
            others = [other for other in budgets if other is not budget]
            return derive_peak_and_sum(
                functools.partial(_with_limits, probabilities, others, budget.cost), budget.cost, budget.limit
            )
    sums, peaks = _sums_and_peaks(budgets)
    if not sums:  # no sum is limited: the same search, with a cost of 0 for every block
        return derive(free_cost(budgets[0].cost.space), probabilities, 0.0, floor=0.0, peaks=peaks)
    if len(sums) == 1:
        return derive(sums[0][0], probabilities, sums[0][1], floor, peaks)
    return derive_within_all([cost for cost, _ in sums], [limit for _, limit in sums], probabilities, peaks)


def _with_limits(
    probabilities: Sequence[np.ndarray], others: Sequence[Budget], cost: PeakAndSum, total: float, peak: float
) -> Derived:
    """The best child whose sum is at most ``total`` and whose peak is at most ``peak``, within the other budgets."""
    return _derive_built_in(probabilities, [*others, Budget(cost.total, total), Budget(cost.peak, peak)], floor=0.0)
