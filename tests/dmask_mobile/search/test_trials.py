from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dmask_mobile.costs.counts import Macs
from dmask_mobile.data.images import normalized
from dmask_mobile.interruption import StoppedError
from dmask_mobile.nets.build import build
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.near_budget import tightest_share
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher, SearchResult
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.trials import loss_and_accuracy, trial_trainer
from dmask_mobile.training.machine import Machine
from tests.dmask_mobile.small import SPACE, few_images

COST = Macs().on(SPACE)
LOW, HIGH = COST.reachable()
BUDGET = Budget(COST, (LOW + HIGH) / 2)
SETTINGS = SearchSettings(epochs=1, warmup=0, evaluations=4, trials=3, trial_epochs=2, batch_size=128)


def searcher(settings: SearchSettings = SETTINGS) -> Searcher:
    return Searcher(SPACE, few_images(), [BUDGET], settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("undisturbed")
    found = searcher().run(folder / "search.pt")
    assert not (folder / "trials").exists()
    return found


def test_each_trial_is_of_another_child_within_the_budget(undisturbed: SearchResult) -> None:
    assert len({trial.choice for trial in undisturbed.trials}) == SETTINGS.trials
    assert all(tightest_share([BUDGET], trial.choice) <= 1 for trial in undisturbed.trials)


def test_a_trial_starts_from_the_supernets_weights() -> None:
    search = searcher()
    trainer = trial_trainer(search.parts, search.gate_training)
    shared = search.parts.supernet.state_dict()
    pointwise = {name: own for name, own in trainer.state.network.state_dict().items() if own.shape[2:] == (1, 1)}
    assert pointwise
    for name, own in pointwise.items():
        outputs, inputs = own.shape[:2]
        assert torch.equal(own, shared[name][:outputs, :inputs]), name


def test_gates_learn_from_trials(undisturbed: SearchResult, tmp_path: Path) -> None:
    without = searcher(SETTINGS.model_copy(update={"trials": 0})).run(tmp_path / "search.pt")
    assert without.trials == ()
    assert not torch.equal(without.logits.logits, undisturbed.logits.logits)


def test_a_search_stopped_inside_a_trial_goes_on_and_ends_as_if_it_had_not_been(
    undisturbed: SearchResult, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == 1 and (tmp_path / "trials" / "1.pt").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = searcher()
    with pytest.raises(StoppedError, match="SIGTERM"):
        stopped.run(tmp_path / "search.pt", stop)
    assert len(stopped.state.trials) == 1
    told: list[str] = []
    resumed = searcher().run(tmp_path / "search.pt", lambda stage, done, total, note="": told.append(f"{stage} {done}"))
    trained = [each for each in told if not each.startswith("corner")]
    assert trained[0] == "train 1"  # the epoch of the trial that was finished is not trained again
    assert resumed.trials == undisturbed.trials
    assert torch.equal(resumed.logits.logits, undisturbed.logits.logits)


def test_the_best_child_by_the_gates_is_taken_and_trials_are_reported(undisturbed: SearchResult) -> None:
    chosen = choose_child(searcher(), undisturbed)
    assert chosen.candidates == ()
    assert [trial.choice for trial in chosen.trials] == [trial.choice for trial in undisturbed.trials]
    assert [trial.costs for trial in chosen.trials] == [(COST.cost(trial.choice),) for trial in undisturbed.trials]


def test_loss_and_accuracy_are_means_over_the_validation_images() -> None:
    data = few_images(64)
    child = SPACE.child(SPACE.largest())
    network = build(child, torch.Generator().manual_seed(0)).eval()
    loss, accuracy = loss_and_accuracy(network, data.at(child.resolution), Machine())
    with torch.no_grad():
        scores = network(normalized(data.val.pixels(), data.at(child.resolution)))
    labels = torch.as_tensor(data.val.labels)
    assert loss == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-5)
    assert accuracy == pytest.approx(float((scores.argmax(1) == labels).float().mean()))


def test_a_search_on_very_few_images_ends_on_its_budget(tmp_path: Path) -> None:
    settings = SearchSettings(epochs=1, trials=3, batch_size=32)
    found = Searcher(SPACE, few_images(40), [BUDGET], settings).run(tmp_path / "search.pt")
    assert found.expected[0] == pytest.approx(BUDGET.limit, rel=0.03)
