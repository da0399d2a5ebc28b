"""Derivation against brute force, on spaces small enough to enumerate."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dmask_mobile.costs.counts import Macs
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.search import derive as derivation
from dmask_mobile.search.derive import FLOOR, derive, log_scores, score_of
from tests.strategies import spaces


def all_choices(space: SearchSpace) -> list[Choice]:
    return [Choice(indices=i) for i in itertools.product(*(range(len(d.options)) for d in space.decisions))]


def random_probabilities(space: SearchSpace, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.ones(len(d.options))) for d in space.decisions]


@given(spaces(), st.integers(0, 2**32), st.floats(0, 1))
def test_equals_brute_force(space: SearchSpace, seed: int, place: float) -> None:
    assume(np.prod([float(len(d.options)) for d in space.decisions]) <= 1000)
    cost = Macs().on(space)
    choices = all_choices(space)
    costs = np.array([cost.cost(choice) for choice in choices])
    budget = costs.min() + place * (costs.max() - costs.min())
    probabilities = random_probabilities(space, seed)
    scores = log_scores(probabilities)
    values = np.array([score_of(space, scores, choice) for choice in choices])
    inside = (costs <= budget) & (costs >= FLOOR * budget)
    lower_bound_relaxed = not inside.any()
    if lower_bound_relaxed:
        inside = costs <= budget

    derived = derive(cost, probabilities, float(budget))

    assert Macs().estimate(space.child(derived.choice)).value <= budget
    assert derived.lower_bound_relaxed == lower_bound_relaxed
    assert derived.score == pytest.approx(values[inside].max(), abs=1e-9)


@pytest.mark.slow
@given(spaces(), st.integers(0, 2**32), st.floats(0, 1), st.booleans())
def test_integer_programming_finds_what_labels_find(space: SearchSpace, seed: int, place: float, tied: bool) -> None:
    """With random probabilities and with few different ones, so that many scores are equal."""
    cost = Macs().on(space)
    low, high = cost.reachable()
    probabilities = random_probabilities(space, seed)
    if tied:
        probabilities = [np.ceil(4 * p) / np.ceil(4 * p).sum() for p in probabilities]
    budget = low + place * (high - low)
    by_labels = derive(cost, probabilities, budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivation, "MAX_LABELS", 0)
        by_milp = derive(cost, probabilities, budget)
    assert by_milp.score == pytest.approx(by_labels.score, abs=2e-6)
    assert by_milp.lower_bound_relaxed == by_labels.lower_bound_relaxed
    assert cost.cost(by_milp.choice) <= budget


@pytest.mark.slow
def test_tied_scores_of_a_large_space_need_a_limited_number_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform gates, as before the first gate step: every child scores 0, and any child within the bounds is best."""
    space = load_space("fbnetv2_f")
    cost = Macs().on(space)
    budget = sum(cost.reachable()) / 2
    extend, counts = derivation._extend, []

    def counting(*arguments: Any) -> Any:
        labels = extend(*arguments)
        counts.append(len(labels.cost))
        return labels

    monkeypatch.setattr(derivation, "_extend", counting)
    derived = derive(cost, [np.full(len(d.options), 1 / len(d.options)) for d in space.decisions], budget)
    assert max(counts) <= derivation.MAX_LABELS
    assert derived.score == 0
    assert not derived.lower_bound_relaxed
    assert FLOOR * budget <= cost.cost(derived.choice) <= budget


@pytest.mark.slow
@given(spaces())
def test_reachable_range_is_that_of_all_children(space: SearchSpace) -> None:
    assume(np.prod([float(len(d.options)) for d in space.decisions]) <= 1000)
    cost = Macs().on(space)
    costs = [cost.cost(choice) for choice in all_choices(space)]
    assert cost.reachable() == (min(costs), max(costs))


def test_no_child_within_the_budget() -> None:
    space = load_space("demo")
    with pytest.raises(DmaskError, match=r"no child of 'demo' has macs <= 1000 macs; the space reaches"):
        derive(Macs().on(space), random_probabilities(space, 0), 1000)
