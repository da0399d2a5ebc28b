from __future__ import annotations

import itertools

import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.records.space import load_space, shipped_spaces
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.near_budget import centre_on_budgets, decide, draw_near
from dmask_mobile.supernet.gates import GateLogits
from tests.dmask_mobile.small import SPACE

MACS, PARAMS = Macs().on(SPACE), Params().on(SPACE)


def at(place: float) -> float:
    low, high = MACS.reachable()
    return low + place * (high - low)


@pytest.mark.parametrize("place", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_the_expected_cost_comes_to_the_budget_and_gates_stay_undecided(place: float) -> None:
    logits = GateLogits(SPACE)
    centre_on_budgets(logits, [MACS], [at(place)])
    assert float(MACS.expected(logits.probabilities()).detach()) == pytest.approx(at(place), rel=0.006)
    entropies = logits.normalized_entropies()
    assert float(entropies.mean().detach()) > (0.9 if 0.25 <= place <= 0.5 else 0.4)


def test_of_two_budgets_the_tighter_is_met_and_the_other_kept() -> None:
    logits, limits = GateLogits(SPACE), [at(0.3), PARAMS.reachable().high]
    centre_on_budgets(logits, [MACS, PARAMS], limits)
    shares = [
        float(c.expected(logits.probabilities()).detach()) / b for c, b in zip((MACS, PARAMS), limits, strict=True)
    ]
    assert max(shares) == pytest.approx(1, abs=0.006)


@pytest.mark.parametrize("place", [0.25, 0.75])
def test_draws_are_within_the_budget_and_not_far_below(place: float) -> None:
    logits, generator = GateLogits(SPACE), torch.Generator().manual_seed(0)
    centre_on_budgets(logits, [MACS], [at(place)])
    choices = [draw_near(logits, [Budget(MACS, at(place))], generator) for _ in range(50)]
    assert all(0.9 * at(place) <= MACS.cost(choice) <= at(place) for choice in choices)
    assert len(set(choices)) > 30


def test_the_nearest_is_drawn_where_no_child_is_near() -> None:
    """There is no child between two neighbouring costs, so the nearest child is drawn."""
    low, _ = MACS.reachable()
    choice = draw_near(GateLogits(SPACE), [Budget(MACS, 0.5 * low)], torch.Generator().manual_seed(0))
    assert MACS.cost(choice) < at(0.3)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if "fbnet" in n else n for n in shipped_spaces()]
)
def test_gates_with_any_preferences_are_decided_on_the_budget(name: str) -> None:
    """Nine budgets and preferences in each space that ships: expected cost within 1%, gates decided."""
    space = load_space(name)
    cost = Macs().on(space)
    low, high = cost.reachable()
    for place, seed in itertools.product((0.25, 0.5, 0.75), range(3)):
        limit = low + place * (high - low)
        logits = GateLogits(space)
        torch.nn.init.normal_(logits.logits, generator=torch.Generator().manual_seed(seed))
        if seed == 2:
            with torch.no_grad():  # the larger, the better
                logits.logits += torch.arange(logits.logits.shape[1])
        centre_on_budgets(logits, [cost], [limit])
        decide(logits, [cost], [limit], 0.05)
        assert float(cost.expected(logits.probabilities()).detach()) == pytest.approx(limit, rel=0.01), (place, seed)
        assert float(logits.normalized_entropies().mean().detach()) <= 0.2, (place, seed)
