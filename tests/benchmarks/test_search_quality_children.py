from __future__ import annotations

import random

import pytest
from search_quality.children import evolve, scaled_children, typical_latency, within
from search_quality.protocol import WHOLE, Ungated

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.counts import Macs
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.scaling import Way

SPACE = WHOLE.settings[-1].search_space(10)
MACS = Macs().on(SPACE)
BUDGET = 3e6
assert isinstance(MACS, ChainCost)


def test_random_children_are_different_and_within_the_budget() -> None:
    found = list(within(MACS, BUDGET, 20, random.Random(0)))
    assert len({SPACE.child(choice).digest() for choice in found}) == 20
    assert all(0.95 * BUDGET <= MACS.cost(choice) <= BUDGET for choice in found)


@pytest.mark.parametrize("way", ["widths", "depth", "resolution"])
def test_scaled_children_keep_what_their_way_does_not_scale(way: Way) -> None:
    scaled = {"width", "expansion", *({"depth": {"skip"}, "resolution": {"resolution"}}.get(way, set()))}
    for choice in scaled_children(MACS, way, BUDGET, 2):
        assert MACS.cost(choice) == pytest.approx(BUDGET, rel=0.02)
        changed = {
            decision.kind
            for decision, ours, largest in zip(SPACE.decisions, choice.indices, SPACE.largest().indices, strict=True)
            if ours != largest
        }
        assert changed <= scaled


def test_evolution_judges_so_many_children_and_finds_better_ones_than_it_began_with() -> None:
    settings, judged = Ungated(evaluations=150, population=20, sample=5), dict[Choice, float]()
    kernels = [i for i, decision in enumerate(SPACE.decisions) if decision.kind == "kernel"]

    def accuracy(choice: Choice) -> float:
        return judged.setdefault(choice, sum(choice[i] for i in kernels) / len(kernels))

    evolve(MACS, BUDGET, accuracy, settings, random.Random(0))
    values = list(judged.values())
    assert len(values) == 150
    assert all(0.95 * BUDGET <= MACS.cost(choice) <= BUDGET for choice in judged)
    assert max(values) > max(values[:20])


def test_children_with_the_wanted_multiply_adds_lie_at_the_centre_of_their_budget() -> None:
    assert typical_latency(MACS, MACS, BUDGET) == pytest.approx(BUDGET / 0.975, rel=0.02)
    with pytest.raises(DmaskError, match="too few children have 1e\\+09 multiply-adds"):
        typical_latency(MACS, MACS, 1e9)
