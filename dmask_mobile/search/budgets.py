"""`Budget`: a cost and the most of it that the child may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.memory import SpacePeak
from dmask_mobile.costs.model import SpaceCost
from dmask_mobile.costs.values import Correction
from dmask_mobile.errors import DmaskError
from dmask_mobile.search.derive import Derived, PeakLimit, derive
from dmask_mobile.search.derive_several import derive_within_all


class Budget(NamedTuple):
    """A cost of every child and the most of it that the child may have."""

    cost: SpaceCost
    limit: float


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Refuses what no child can meet, and what every child meets.

    Raises:
        DmaskError: naming the budget and the reachable range.
    """
    for cost, limit in budgets:
        low, high = cost.reachable()
        if not low <= limit <= high:
            where = "below" if limit < low else "above"
            raise DmaskError(
                f"budget {cost.name}={limit:g} {cost.unit} is {where} what '{cost.space.name}' can reach:"
                f" {low:.4g} to {high:.4g} {cost.unit}",
                "choose a budget in that range or another space",
            )


def derive_within(budgets: Sequence[Budget], probabilities: Sequence[np.ndarray]) -> Derived:
    """The best child within every budget: exact for one sum over blocks, with a stated gap for several.

    A peak is no sum: its budget leaves out the blocks that exceed it, exactly.

    Raises:
        DmaskError: when no child was found.
    """
    sums = [(b.cost, b.limit) for b in budgets if isinstance(b.cost, ChainCost)]
    peaks = tuple(PeakLimit(b.cost, b.limit) for b in budgets if isinstance(b.cost, SpacePeak))
    if not sums:  # nothing to add up: the same search with a cost of 0 everywhere
        peak = peaks[0].cost
        zeros = tuple(block._replace(values=np.zeros_like(block.values)) for block in peak.blocks)
        free = ChainCost(peak.space, "", "", (Correction(),) * len(peak.space.input.resolutions), zeros)
        return derive(free, probabilities, 0.0, floor=0.0, peaks=peaks)
    if len(sums) == 1:
        return derive(sums[0][0], probabilities, sums[0][1], peaks=peaks)
    return derive_within_all([cost for cost, _ in sums], [limit for _, limit in sums], probabilities, peaks)
