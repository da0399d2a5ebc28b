"""Several budgets at once against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmask_mobile.costs.chain import weighted_sum
from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.derive import log_scores, score_of
from dmask_mobile.search.derive_several import derive_within_all
from tests.dmask_mobile.search.test_derive import all_choices, random_probabilities
from tests.dmask_mobile.small import SPACE
from tests.strategies import spaces


@given(spaces(), st.integers(0, 2**32), st.floats(0.3, 1), st.floats(0.3, 1))
@settings(max_examples=15)
def test_feasible_with_an_honest_gap(space: SearchSpace, seed: int, first: float, second: float) -> None:
    assume(np.prod([float(len(d.options)) for d in space.decisions]) <= 500)
    costs = [Macs().on(space), Params().on(space)]
    choices = all_choices(space)
    values = np.array([[cost.cost(choice) for cost in costs] for choice in choices])
    low, high = values.min(0), values.max(0)
    budgets = low + np.array([first, second]) * (high - low)
    probabilities = random_probabilities(space, seed)
    scores = np.array([score_of(space, log_scores(probabilities), choice) for choice in choices])
    inside = (values <= budgets).all(1)
    assert inside.any()

    try:
        derived = derive_within_all(costs, budgets.tolist(), probabilities)
    except DmaskError:
        assert inside.mean() < 0.2  # only where few children are within both
        return

    assert all(cost.cost(derived.choice) <= budget for cost, budget in zip(costs, budgets, strict=True))
    assert derived.score <= scores[inside].max() + 1e-9
    assert scores[inside].max() <= derived.score + derived.gap + 1e-9


def test_one_budget_that_does_not_bind_leaves_the_other_exact() -> None:
    costs = [Macs().on(SPACE), Params().on(SPACE)]
    choices = all_choices(SPACE)
    macs = np.array([costs[0].cost(choice) for choice in choices])
    budget = float(np.median(macs))
    probabilities = random_probabilities(SPACE, 3)
    scores = np.array([score_of(SPACE, log_scores(probabilities), choice) for choice in choices])
    derived = derive_within_all(costs, [budget, 1e12], probabilities)
    assert derived.score + derived.gap >= scores[macs <= budget].max() - 1e-9
    assert costs[0].cost(derived.choice) <= budget


def test_weighted_sum_is_the_sum_of_the_costs() -> None:
    costs = [Macs().on(SPACE), Params().on(SPACE)]
    both = weighted_sum(costs, (0.25, 3.0))
    for choice in (SPACE.smallest(), SPACE.largest()):
        assert both.cost(choice) == pytest.approx(0.25 * costs[0].cost(choice) + 3 * costs[1].cost(choice))


def test_budgets_that_no_child_keeps() -> None:
    with pytest.raises(DmaskError, match="found no child of 'small' with macs <= 1 macs, params <= 1 params; raise"):
        derive_within_all([Macs().on(SPACE), Params().on(SPACE)], [1, 1], random_probabilities(SPACE, 0))
