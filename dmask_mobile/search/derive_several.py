"""A child within several budgets at once, with the gap to the best possible score.

One weighted sum of all costs is a relaxation: a child within every budget also has ``sum_k w_k cost_k / budget_k <= 1``
for weights that sum to 1. So the best child under that one constraint has at least the score of any child within all
budgets. It is found exactly (`derive.derive`). If it exceeds a budget, the weight of that budget grows; if no weights
help, the common limit shrinks. The gap is the difference between the lowest of the bounds and the score of the child
that was found; 0 means that this child is the best one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmask_mobile.costs.chain import ChainCost, weighted_sum
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.derive import Derived, PeakLimit, derive, log_scores, score_of

ROUNDS_PER_LIMIT = 25
LIMITS = (1.0, 0.99, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


def derive_within_all(
    costs: Sequence[ChainCost],
    budgets: Sequence[float],
    probabilities: Sequence[np.ndarray],
    peaks: Sequence[PeakLimit] = (),
) -> Derived:
    """The best child found whose costs are all within their budgets.

    No child within the budgets has a higher score than the sum of its score and its gap.

    Args:
        costs: the costs of every child of one space.
        budgets: one for each cost, in its unit.
        probabilities: ``softmax(logits)`` of each decision.
        peaks: limits that no block of the child may exceed.

    Raises:
        DmaskError: if no child within all budgets was found.
    """
    space, limits = costs[0].space, np.asarray(budgets, float)
    scores = log_scores(probabilities)
    best: Choice | None = None
    best_score, bound = -np.inf, np.inf
    for limit in LIMITS:
        weights = np.full(len(costs), 1 / len(costs))
        for round_ in range(ROUNDS_PER_LIMIT):
            relaxed = weighted_sum(costs, tuple(weights / limits))
            try:
                choice = derive(relaxed, probabilities, limit, floor=0.0, peaks=peaks).choice
            except DmaskError:
                break
            score = score_of(space, scores, choice)
            shares = np.array([cost.cost(choice) for cost in costs]) / limits
            if limit == LIMITS[0]:
                bound = min(bound, score)
            if (shares <= 1).all():
                if score > best_score:
                    best, best_score = choice, score
                break
            weights = weights * np.exp(4.0 / (1 + round_) ** 0.5 * (shares - 1))
            weights = weights / weights.sum()
        if best is not None and limit < LIMITS[0]:
            break  # smaller limits would only lower the score
    if best is None:
        wanted = ", ".join(f"{c.name} <= {b:g} {c.unit}" for c, b in zip(costs, budgets, strict=True))
        raise DmaskError(f"found no child of '{space.name}' with {wanted}", "raise one of the budgets")
    return Derived(best, best_score, max(0.0, float(bound - best_score)), lower_bound_relaxed=True)
