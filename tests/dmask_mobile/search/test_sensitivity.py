"""Tests of the gates that learn from a given network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from dmask_mobile.costs.counts import Macs
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.estimate import TYPICAL_STEPS, estimate_searching
from dmask_mobile.search.loss_model import Evaluation
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher, SearchResult
from dmask_mobile.search.sensitivity import changes_of, mean_effects
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.dmask_mobile.small import SPACE, few_images

COST = Macs().on(SPACE)
BUDGET = Budget(COST, 0.6 * COST.cost(SPACE.largest()))
SETTINGS = SearchSettings(method="sensitivity", epochs=2, warmup=0, trials=0, evaluation_images=32, batch_size=16)
WEIGHTS = MaskedSupernet(SPACE, torch.Generator().manual_seed(3)).state_dict()
COUNTS = [len(decision.options) for decision in SPACE.decisions]


def searcher() -> Searcher:
    return Searcher(SPACE, few_images(), [BUDGET], SETTINGS, weights=WEIGHTS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searcher, SearchResult]:
    made = searcher()
    return made, made.run(tmp_path_factory.mktemp("undisturbed") / "search.pt")


def test_no_weight_changes_and_the_child_is_within_the_budget(undisturbed: tuple[Searcher, SearchResult]) -> None:
    made, found = undisturbed
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in found.supernet.named_parameters())
    chosen = choose_child(made, found)
    assert 0.95 * BUDGET.limit <= chosen.costs[0] <= BUDGET.limit
    assert found.expected[0] == pytest.approx(BUDGET.limit, rel=0.03)
    assert (chosen.candidates, chosen.derivation) == ((), "exact")


def test_a_dry_run_takes_changes_from_the_first_to_the_last_block() -> None:
    made = searcher()
    weights, gates = estimate_searching(made).steps
    assert (weights.num_steps, gates.num_steps) == (0, 2 * (1 + sum(COUNTS) - len(COUNTS)))
    base, *changed = (evaluation.choice for evaluation in made.state.evaluations)
    assert base == SPACE.largest()
    decisions = [next(d for d, option in enumerate(choice.indices) if option != base[d]) for choice in changed]
    assert decisions == sorted(decisions)
    varying = [decision for decision, count in enumerate(COUNTS) if count > 1]
    assert (len(changed), decisions[0]) == (TYPICAL_STEPS, varying[0])
    assert decisions[-1] > varying[len(varying) // 2]


def test_it_measures_divergences_from_the_given_network(undisturbed: tuple[Searcher, SearchResult]) -> None:
    made, _ = undisturbed
    first = made.state.evaluations[: 1 + sum(COUNTS) - len(COUNTS)]
    assert first[0].choice == SPACE.largest()
    assert first[0].loss == pytest.approx(0, abs=1e-6)
    given = MaskedSupernet(SPACE)
    given.load_state_dict(WEIGHTS)
    batch = next(made.parts.batches(made.for_gates, 32, 0, 0))
    with torch.no_grad():
        wanted, moved = (given(batch.images, choice).softmax(1) for choice in (SPACE.largest(), first[-1].choice))
    expected = (wanted * (wanted / moved).log()).sum(1).mean()
    assert first[-1].loss == pytest.approx(float(expected), rel=1e-3)


def test_the_second_epoch_measures_changes_of_the_best_child_so_far(undisturbed: tuple[Searcher, SearchResult]) -> None:
    evaluations = undisturbed[0].state.evaluations
    base = evaluations[len(evaluations) // 2].choice
    assert COST.cost(base) <= BUDGET.limit
    assert [each.choice for each in evaluations[len(evaluations) // 2 :]] == changes_of(base, COUNTS)


def test_effects_are_means_over_epochs_relative_to_the_given_option() -> None:
    def epoch(base: tuple[int, int], losses: list[float]) -> list[Evaluation]:
        children = changes_of(Choice(indices=base), [3, 2])
        return [Evaluation(0, loss, child) for loss, child in zip(losses, children, strict=True)]

    whole = epoch((2, 1), [0.0, 0.5, 0.1, 0.3])  # base, then 0 and 1 of the first decision, 0 of the second
    small = epoch((1, 0), [0.4, 1.0, 0.2, 0.1])  # base, then 0 and 2 of the first decision, 1 of the second
    first, second = mean_effects([whole, small], [3, 2])
    np.testing.assert_allclose(first, [(0.5 + 0.8) / 2, (0.1 + 0.2) / 2, 0])
    np.testing.assert_allclose(second, [(0.3 + 0.3) / 2, 0])


def test_a_stopped_search_goes_on_and_ends_as_if_it_had_not_been(
    undisturbed: tuple[Searcher, SearchResult], tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "search" or done == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="SIGTERM"):
        searcher().run(tmp_path / "search.pt", stop)
    resumed = searcher()
    found = resumed.run(tmp_path / "search.pt")
    assert [each.loss for each in resumed.state.evaluations] == [each.loss for each in undisturbed[0].state.evaluations]
    assert torch.equal(found.logits.logits, undisturbed[1].logits.logits)


def test_a_network_of_other_classes_is_measured_by_its_own_scores(tmp_path: Path) -> None:
    other = MaskedSupernet(SPACE.with_classes(SPACE.classes + 3), torch.Generator().manual_seed(3)).state_dict()
    made = Searcher(SPACE, few_images(), [BUDGET], SETTINGS, weights=other)
    made.run(tmp_path / "search.pt")
    assert made.gate_training.given.space.classes == SPACE.classes + 3  # type: ignore[attr-defined]
    assert max(each.loss for each in made.state.evaluations) > 0


def test_a_space_without_weights_is_refused() -> None:
    with pytest.raises(DmaskError, match="'sensitivity' measures a trained network, and this space has no weights"):
        Searcher(SPACE, few_images(), [BUDGET], SETTINGS)
