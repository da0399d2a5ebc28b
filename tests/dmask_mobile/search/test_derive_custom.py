"""Budgets of costs that are neither sums over blocks nor peaks."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.costs.values import CostRange
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget, check_budgets, checked_budgets, derive_within
from dmask_mobile.search.derive import FLOOR, log_scores, score_of
from tests.dmask_mobile.search.test_derive import all_choices, random_probabilities
from tests.dmask_mobile.small import SPACE

MACS = Macs().on(SPACE)


class Product:
    """Multiply-adds times parameters, which is not a sum over blocks."""

    name, unit = "product", "points"

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.parts = (Macs().on(space), Params().on(space))

    def digest(self) -> str:
        return "product"

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        first, second = (part.expected(probabilities) for part in self.parts)
        return first * second

    def cost(self, choice: Choice) -> float:
        return self.parts[0].cost(choice) * self.parts[1].cost(choice)

    def reachable(self) -> CostRange:
        first, second = (part.reachable() for part in self.parts)
        return CostRange(first.low * second.low, first.high * second.high)


PRODUCT = Product(SPACE)
CHOICES = all_choices(SPACE)


@functools.cache
def costs() -> tuple[np.ndarray, np.ndarray]:
    """Multiply-adds and products of all children."""
    macs, params = (np.array([part.cost(choice) for choice in CHOICES]) for part in PRODUCT.parts)
    return macs, macs * params


@pytest.mark.parametrize(("seed", "share", "place"), [(0, 0.1, 0.8), (1, 0.3, 0.3), (2, 0.6, 0.2), (3, 0.02, 0.9)])
def test_a_derived_child_is_within_a_custom_budget_and_the_others(seed: int, share: float, place: float) -> None:
    """Compared with all children: within both budgets, not better than the best, and the gap covers the best."""
    macs, products = costs()
    custom = Budget(PRODUCT, float(np.quantile(products, share)))
    other = Budget(MACS, MACS.reachable().low + place * (MACS.reachable().high - MACS.reachable().low))
    probabilities = random_probabilities(SPACE, seed)
    scores = log_scores(probabilities)

    derived = derive_within([other, custom], probabilities)

    assert PRODUCT.cost(derived.choice) <= custom.limit
    assert MACS.cost(derived.choice) <= other.limit
    lowest = 0 if derived.lower_bound_relaxed else FLOOR * other.limit
    within = (products <= custom.limit) & (macs <= other.limit) & (macs >= lowest)
    best = max(score_of(SPACE, scores, CHOICES[index]) for index in np.flatnonzero(within))
    assert derived.score <= best + 1e-9
    assert derived.score + derived.gap >= best - 1e-9


def test_a_custom_budget_alone() -> None:
    limit = float(np.quantile(costs()[1], 0.3))
    choice = derive_within([Budget(PRODUCT, limit)], random_probabilities(SPACE, 2)).choice
    assert PRODUCT.cost(choice) <= limit


def test_a_custom_budget_that_nothing_meets_is_an_error_after_a_limited_number_of_attempts() -> None:
    with pytest.raises(DmaskError, match=r"found no child of 'small' with product <= 1 points .* in 90 attempts"):
        derive_within([Budget(PRODUCT, 1.0)], random_probabilities(SPACE, 3))


def test_a_sum_that_costs_a_child_in_its_own_way_is_held_by_that() -> None:
    class Doubled(ChainCost):
        def cost(self, choice: Choice) -> float:
            return 2 * super().cost(choice)

    doubled = Doubled(SPACE, "doubled", "macs", MACS.corrections, MACS.blocks)
    limit = sum(MACS.reachable())
    choice = derive_within([Budget(doubled, limit)], random_probabilities(SPACE, 4)).choice
    assert doubled.cost(choice) <= limit


@pytest.mark.parametrize("part", ["digest", "expected", "cost", "reachable"])
def test_what_a_custom_cost_raises_is_reported_as_its_own(part: str) -> None:
    class Broken(Product):
        pass

    def fail(*_: object) -> float:
        raise RuntimeError("out of order")

    setattr(Broken, part, fail)
    budget = Budget(Broken(SPACE), float(np.mean(costs()[1])))
    with pytest.raises(DmaskError, match=rf"custom cost 'product': {part} raised RuntimeError: out of order"):
        use_of_every_part(budget)


def use_of_every_part(budget: Budget) -> None:
    check_budgets([budget])
    (checked,) = checked_budgets([budget])
    checked.cost.digest()
    checked.cost.expected([torch.tensor(p) for p in random_probabilities(SPACE, 5)])
    derive_within([budget], random_probabilities(SPACE, 5))
