"""A sum and a weighted peak, and the best child within a budget for it, compared with all children of a small space."""

from __future__ import annotations

import itertools

import pytest
import torch

from dmask_mobile.costs.counts import Macs
from dmask_mobile.costs.memory import PeakActivationBytes, WeightBytes
from dmask_mobile.costs.peak_and_sum import PeakAndSum
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget, derive_within
from dmask_mobile.search.derive import log_scores, score_of
from tests.dmask_mobile.search.test_derive import random_probabilities
from tests.dmask_mobile.small import SPACE

COST = PeakAndSum(WeightBytes().on(SPACE), PeakActivationBytes().on(SPACE), 2.0, "memory", "bytes")
CHILDREN = [Choice(indices=indices) for indices in itertools.product(*(range(len(d.options)) for d in SPACE.decisions))]
VALUES = [COST.cost(choice) for choice in CHILDREN]


def test_it_is_the_sum_and_the_peak_of_a_child() -> None:
    choice = SPACE.largest()
    child = SPACE.child(choice)
    expected = WeightBytes().estimate(child).value + 2 * PeakActivationBytes().estimate(child).value
    assert COST.cost(choice) == expected
    one_hot = [
        torch.nn.functional.one_hot(torch.tensor(index), len(decision.options)).double()
        for index, decision in zip(choice.indices, SPACE.decisions, strict=True)
    ]
    assert COST.expected(one_hot).item() == pytest.approx(expected)


def test_the_reachable_range_is_that_of_all_children() -> None:
    low, high = COST.reachable()
    assert low == pytest.approx(min(VALUES))
    assert high >= max(VALUES)


@pytest.mark.parametrize("place", [0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_derived_child_is_the_best_within_the_budget(place: float, seed: int) -> None:
    probabilities = random_probabilities(SPACE, seed)
    limit = sorted(VALUES)[int(place * (len(VALUES) - 1))]
    found = derive_within([Budget(COST, limit)], probabilities)
    scores = log_scores(probabilities)
    best = max(
        score_of(SPACE, scores, choice) for choice, value in zip(CHILDREN, VALUES, strict=True) if value <= limit
    )
    assert COST.cost(found.choice) <= limit
    assert found.score == pytest.approx(best)
    assert found.gap == 0


def test_beside_another_budget() -> None:
    macs = Macs().on(SPACE)
    budgets = [Budget(COST, sorted(VALUES)[len(VALUES) // 3]), Budget(macs, sum(macs.reachable()) / 3)]
    found = derive_within(budgets, random_probabilities(SPACE, 1))
    assert all(cost.cost(found.choice) <= limit for cost, limit in budgets)


def test_no_child_is_below_the_lowest() -> None:
    with pytest.raises(DmaskError, match=r"found no child of 'small' with memory <= .* the space reaches"):
        derive_within([Budget(COST, min(VALUES) * 0.99)], random_probabilities(SPACE, 1))
