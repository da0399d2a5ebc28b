"""Several children within the budgets, ranked by the supernet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.data.images import normalized
from dmask_mobile.search.budgets import Budget, derive_within
from dmask_mobile.search.rank import draw_within, rank, recalibrated_accuracy
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.gates import GateLogits, one_hot_gates
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.dmask_mobile.search.test_derive import random_probabilities
from tests.dmask_mobile.small import SPACE, few_images

COSTS = (Macs().on(SPACE), Params().on(SPACE))
BUDGETS = [Budget(cost, sum(cost.reachable()) / 2) for cost in COSTS]
PROBABILITIES = random_probabilities(SPACE, 0)


def logits_of(probabilities: Sequence[np.ndarray]) -> GateLogits:
    logits = GateLogits(SPACE)
    with torch.no_grad():
        for row, gate in zip(logits.logits, probabilities, strict=True):
            row[: len(gate)] = torch.from_numpy(np.log(gate))
    return logits


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("budgets", [BUDGETS[:1], BUDGETS])
def test_drawn_children_differ_and_are_within_all_budgets(budgets: list[Budget]) -> None:
    drawn = draw_within(budgets, logits_of(PROBABILITIES), 6, generator())
    assert len({SPACE.child(choice).digest() for choice in drawn}) == len(drawn) == 6
    assert drawn[0] == derive_within(budgets, PROBABILITIES).choice
    assert all(budget.cost.cost(choice) <= budget.limit for choice in drawn for budget in budgets)


def test_decided_gates_still_give_several_children() -> None:
    decided = [np.full(len(p), 1e-9) for p in PROBABILITIES]
    for gate in decided:
        gate[0] = 1
    assert len(draw_within(BUDGETS[:1], logits_of(decided), 3, generator())) == 3


def test_recalibration_gives_batch_norms_the_childs_own_statistics() -> None:
    """Wrong running statistics of the supernet do not affect the ranking, and they are not changed."""
    data = few_images(512)
    supernet = MaskedSupernet(SPACE)
    choice = SPACE.smallest()
    images = (data.train, data.val)
    good = recalibrated_accuracy(supernet, choice, images, data)
    for name, value in supernet.state_dict().items():
        if "running" in name:
            value.fill_(123.0)
    assert recalibrated_accuracy(supernet, choice, images, data) == good
    assert supernet.blocks[0].norm.running_mean[0] == 123
    supernet.eval()
    with torch.no_grad():
        scores = supernet(normalized(data.val.pixels(), data), one_hot_gates(SPACE, choice))
    assert scores.std(0).max() < 1e-3  # without recalibration all images look alike


def test_ranking_is_by_loss() -> None:
    data = few_images(512)
    choices = draw_within(BUDGETS[:1], logits_of(PROBABILITIES), 3, generator())
    supernet = MaskedSupernet(SPACE)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    ranked = rank(choices, supernet, PROBABILITIES, data.val, data)
    assert sorted(c.loss for c in ranked) == [c.loss for c in ranked]
    assert {c.choice for c in ranked} == set(choices)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_the_loss_of_a_candidate_is_that_of_its_slice_in_training_mode() -> None:
    data = few_images(96)  # 32 validation images: one batch
    supernet, choice = MaskedSupernet(SPACE), SPACE.smallest()
    (ranked,) = rank([choice], supernet, PROBABILITIES, data.val, data)
    scores = supernet.train()(normalized(data.val.pixels(), data), choice)
    expected = torch.nn.functional.cross_entropy(scores, data.val.labels)
    assert ranked.loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_result_says_how_the_child_was_chosen(tmp_path: Path) -> None:
    settings = SearchSettings(epochs=1, warmup=0.0, min_gate_steps=1, batch_size=128, trials=0)
    search = Searcher(SPACE, few_images(512), BUDGETS[:1], settings)
    found = search.run(tmp_path / "c.pt")
    best = choose_child(search, found, samples=1)
    assert best.derivation == "exact"
    assert best.gap == 0
    assert best.candidates == ()
    ranked = choose_child(search, found, samples=3)
    assert ranked.derivation == "ranked"
    assert ranked.choice == ranked.candidates[0].choice
    assert best.choice in [candidate.choice for candidate in ranked.candidates]
    assert all(candidate.costs[0] <= BUDGETS[0].limit for candidate in ranked.candidates)
    assert ranked.decided["stem.width"] == SPACE.decisions[2].options[ranked.choice[2]]
