"""A child within the budgets of custom costs, for which only the cost of a whole child can be computed.

The best child within the other budgets is tried first. If it exceeds a custom budget, each option gets a penalty: the
amount that the option adds to the custom cost of that child, as a share of the budget. The weight of the penalty grows
until the derived child is within the budget, and is then reduced by bisection. If this finds no child, other children
are drawn by adding noise to the scores. Every child that is returned was checked by its own cost. The number of
derivations is limited; the gap to the best child without the custom budgets is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dmask_mobile.costs.model import SpaceCost
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.derive import Derived, log_scores, score_of

PENALTIES = 30  # derivations with a penalty
DRAWS = 60  # derivations with noise, while no child was found
FIRST_WEIGHT, FACTOR = 1.0, 3.0  # of the penalty: the score (nats) for one whole budget, and the growth of the weight
CLOSE = 1.02  # bisection ends when the ratio of the two weights is below this
SEED = 0

Best = Callable[[Sequence[np.ndarray]], Derived]
Limits = Sequence[tuple[SpaceCost, float]]


def derive_custom(best: Best, without_floor: Best, limits: Limits, probabilities: Sequence[np.ndarray]) -> Derived:
    """The best child found whose custom costs are within their budgets.

    No child within the budgets has a higher score than the sum of its score and its gap.

    Args:
        best: a function that returns the best child within the other budgets for given probabilities.
        without_floor: the same without a lower bound on the other costs.
        limits: the custom costs and their budgets.
        probabilities: ``softmax(logits)`` of each decision.

    Raises:
        DmaskError: if no such child was found.
    """
    first = best(probabilities)
    if _within(limits, first.choice):
        return first
    free = without_floor(probabilities)
    if _within(limits, free.choice):
        return free._replace(lower_bound_relaxed=True)
    space, scores = limits[0][0].space, log_scores(probabilities)
    kept: Choice | None = None
    kept_score = -np.inf
    for choice in _candidates(without_floor, limits, scores, _slopes(limits, free.choice)):
        score = score_of(space, scores, choice)
        if score > kept_score and _within(limits, choice):
            kept, kept_score = choice, score
    if kept is None:
        wanted = " and ".join(f"{cost.name} <= {limit:g} {cost.unit}" for cost, limit in limits)
        raise DmaskError(
            f"found no child of '{space.name}' with {wanted} within the other budgets, in {PENALTIES + DRAWS} attempts",
            "raise one of the budgets",
        )
    return Derived(kept, kept_score, max(0.0, free.score + free.gap - kept_score), lower_bound_relaxed=True)


def _candidates(
    best: Best, limits: Limits, scores: Sequence[np.ndarray], slopes: Sequence[np.ndarray]
) -> Iterator[Choice]:
    """Children to check: first by penalties; then by noise, only while no child was within the budgets."""
    low, high, weight, found = 0.0, np.inf, FIRST_WEIGHT, False
    for _ in range(PENALTIES):
        choice = _choice(best, [s - weight * slope for s, slope in zip(scores, slopes, strict=True)])
        if choice is not None:
            yield choice
        if choice is not None and _within(limits, choice):
            high, found = weight, True
        else:
            low = weight
        if np.isinf(high):
            weight *= FACTOR
        elif low == 0:
            weight /= FACTOR
        else:
            weight = float(np.sqrt(low * high))
        if high < CLOSE * low:
            break
    random = np.random.default_rng(SEED)
    for draw in range(0 if found else DRAWS):
        strength, scale = FIRST_WEIGHT * FACTOR ** (draw % 10), 1.0 + draw / 5
        choice = _choice(
            best,
            [
                s - strength * slope + scale * random.gumbel(size=s.shape)
                for s, slope in zip(scores, slopes, strict=True)
            ],
        )
        if choice is not None:
            yield choice
            if _within(limits, choice):
                return


def _choice(best: Best, scores: Sequence[np.ndarray]) -> Choice | None:
    """The best child for modified scores; None if there is none."""
    try:
        return best([np.exp(values - values.max()) for values in scores]).choice
    except DmaskError:
        return None


def _within(limits: Limits, choice: Choice) -> bool:
    return all(cost.cost(choice) <= limit for cost, limit in limits)


def _slopes(limits: Limits, child: Choice) -> list[np.ndarray]:
    """What each option adds to the custom costs if it replaces the child's own option, as shares of the budgets."""
    decisions = limits[0][0].space.decisions

    def shares(decision: int, option: int) -> float:
        indices = (*child.indices[:decision], option, *child.indices[decision + 1 :])
        return sum(cost.cost(Choice(indices=indices)) / limit for cost, limit in limits)

    return [
        np.array([shares(number, option) for option in range(len(decision.options))])
        for number, decision in enumerate(decisions)
    ]
