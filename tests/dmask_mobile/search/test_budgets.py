"""Several budgets in one search, peaks among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.costs.memory import PeakActivationBytes
from dmask_mobile.errors import DmaskError
from dmask_mobile.search.budgets import Budget, derive_within
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from tests.dmask_mobile.search.test_derive import random_probabilities
from tests.dmask_mobile.small import SPACE, few_images

MACS, PARAMS, PEAK = Macs().on(SPACE), Params().on(SPACE), PeakActivationBytes().on(SPACE)
PROBABILITIES = random_probabilities(SPACE, 1)


def between(low: float, high: float, place: float) -> float:
    return low + place * (high - low)


def test_a_peak_alone_leaves_the_best_child_below_it() -> None:
    limit = between(*PEAK.reachable(), 0.3)
    choice = derive_within([Budget(PEAK, limit)], PROBABILITIES).choice
    assert PEAK.cost(choice) <= limit


def test_a_peak_beside_two_sums() -> None:
    budgets = [Budget(cost, between(*cost.reachable(), 0.6)) for cost in (MACS, PARAMS, PEAK)]
    choice = derive_within(budgets, PROBABILITIES).choice
    assert all(budget.cost.cost(choice) <= budget.limit for budget in budgets)


def test_a_peak_that_leaves_nothing_within_the_other_budget() -> None:
    low, _ = PEAK.reachable()
    with pytest.raises(
        DmaskError, match=r"no child of 'small' has macs <= .* macs and peak_activation_bytes <= .*; the space reaches"
    ):
        derive_within([Budget(MACS, MACS.reachable().low), Budget(PEAK, low - 1)], PROBABILITIES)


@pytest.mark.slow
@pytest.mark.parametrize("other_place", [0.3, 0.95])
def test_a_search_keeps_all_budgets_and_lands_on_the_tightest(other_place: float, tmp_path: Path) -> None:
    """With a loose second budget the first one is met exactly; with a tight one the child is within both."""
    budgets = [Budget(MACS, between(*MACS.reachable(), 0.5)), Budget(PARAMS, between(*PARAMS.reachable(), other_place))]
    settings = SearchSettings(epochs=8, batch_size=64, min_gate_steps=500, trials=2)
    found = Searcher(SPACE, few_images(), budgets, settings).run(tmp_path / "s.pt")
    shares = [expected / budget.limit for expected, budget in zip(found.expected, budgets, strict=True)]
    assert max(shares) == pytest.approx(1, abs=0.03)
    assert found.entropy < 0.2


@pytest.mark.slow
def test_a_search_within_a_peak(tmp_path: Path) -> None:
    budget = Budget(PEAK, between(*PEAK.reachable(), 0.4))
    settings = SearchSettings(epochs=4, batch_size=64, min_gate_steps=300, trials=2)
    search = Searcher(SPACE, few_images(), [Budget(MACS, between(*MACS.reachable(), 0.5)), budget], settings)
    found = search.run(tmp_path / "s.pt")
    assert found.expected[1] <= 1.03 * budget.limit
    probabilities = found.logits.as_arrays()
    assert PEAK.cost(derive_within(search.budgets, probabilities).choice) <= budget.limit
