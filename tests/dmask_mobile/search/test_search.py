from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dmask_mobile import api
from dmask_mobile.costs.counts import Macs
from dmask_mobile.costs.effective_shapes import EffectiveShapes
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.derive import derive
from dmask_mobile.search.losses import BudgetLoss, ControlSettings
from dmask_mobile.search.schedule import Schedule
from dmask_mobile.search.search import TAUGHT_SHARE, TEMPERATURE, Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.training.checks import Agreement
from tests.dmask_mobile.small import SPACE, few_images

COST = Macs().on(SPACE)
LOW, HIGH = COST.reachable()
SETTINGS = SearchSettings(epochs=4, batch_size=64, min_gate_steps=6, trials=1)


def searcher(settings: SearchSettings = SETTINGS, place: float = 0.5) -> Searcher:
    return Searcher(SPACE, few_images(), [Budget(COST, LOW + place * (HIGH - LOW))], settings)


@pytest.mark.slow
def test_interrupted_search_ends_with_the_same_logits_bit_for_bit(tmp_path: Path) -> None:
    undisturbed = searcher().run(tmp_path / "a.pt")

    class InterruptedSearchError(Exception):
        pass

    def stop_after_two(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 2:
            raise InterruptedSearchError

    with pytest.raises(InterruptedSearchError):
        searcher().run(tmp_path / "b.pt", stop_after_two)
    torch.rand(3)
    resumed = searcher().run(tmp_path / "b.pt")
    assert torch.equal(undisturbed.logits.logits, resumed.logits.logits)
    assert undisturbed.expected == resumed.expected
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == [0, 1, 2, 3]
    assert metrics[-1]["expected"]["macs"] == resumed.expected[0]
    assert 0 <= metrics[-1]["entropy"] <= 1
    for name, value in undisturbed.supernet.state_dict().items():
        assert torch.equal(value, resumed.supernet.state_dict()[name]), name


@pytest.mark.parametrize(
    "place", [0.5, pytest.param(0.25, marks=pytest.mark.slow), pytest.param(0.75, marks=pytest.mark.slow)]
)
def test_a_search_lands_on_its_budget_decided_and_derives_within_it(place: float, tmp_path: Path) -> None:
    settings = SearchSettings(epochs=8, batch_size=64, min_gate_steps=500, trials=2)
    search = searcher(settings, place)
    budget = search.budgets[0].limit
    found = search.run(tmp_path / "s.pt")
    assert found.expected[0] == pytest.approx(budget, rel=0.03)
    assert found.entropy < 0.2
    probabilities = found.logits.as_arrays()
    assert COST.cost(derive(COST, probabilities, budget).choice) <= budget


def test_a_search_by_effective_shapes_sees_the_papers_cost(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "warmup": 0.0, "expectation": "effective_shapes"})
    search = searcher(settings)
    found, undecided = search.run(tmp_path / "s.pt"), GateLogits(SPACE)
    paper = EffectiveShapes(SPACE, "macs")
    assert found.expected[0] == paper.expected(found.logits.probabilities()).item()
    (expected,) = search.metrics.expected(undecided)
    assert expected == paper.expected(undecided.probabilities()).item()
    assert expected != COST.expected(undecided.probabilities()).item()


@pytest.mark.parametrize(("factor", "where"), [(0.5, "below"), (2.0, "above")])
def test_a_budget_out_of_reach_is_refused_before_training(factor: float, where: str) -> None:
    limit = (LOW if factor < 1 else HIGH) * factor
    with pytest.raises(DmaskError, match=rf"budget macs=.* is {where} what 'small' can reach: .* to .* macs; choose"):
        Searcher(SPACE, few_images(64), [Budget(COST, limit)], SETTINGS)


@pytest.mark.slow
def test_changed_settings_are_refused_and_leave_the_run_as_it_was(tmp_path: Path) -> None:
    class InterruptedSearchError(Exception):
        pass

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "search":
            raise InterruptedSearchError

    budget = {"macs": LOW + 0.5 * (HIGH - LOW)}
    settings = SearchSettings(epochs=2, warmup=0.5, min_gate_steps=1, batch_size=512, trials=1)
    with pytest.raises(InterruptedSearchError):
        api.search(SPACE, "glyphs", budget, tmp_path, settings=settings, progress=stop)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(DmaskError, match="belongs to a search with other settings"):
        api.search(SPACE, "glyphs", budget, tmp_path, settings=settings.model_copy(update={"seed": 1}))
    assert (tmp_path / "run.json").read_bytes() == before
    result = api.search(SPACE, "glyphs", budget, tmp_path, settings=settings).search_result
    assert result.costs[0] <= budget["macs"]


@pytest.mark.slow
def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "warmup": 0.0, "min_gate_steps": 1})
    searcher(settings).run(tmp_path / "c.pt")
    with pytest.raises(DmaskError, match="belongs to a search with other settings"):
        searcher(settings, 0.6).run(tmp_path / "c.pt")


def test_a_loss_that_is_not_finite_stops_the_search(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"weight_learning_rate": 1e30})
    with pytest.raises(DmaskError, match=r"search \(weights\): the loss is (nan|inf|[\d.e+]+) at epoch \d, step \d"):
        searcher(settings).run(tmp_path / "n.pt")


def test_temperature_runs_from_5_to_0_087_whatever_the_length() -> None:
    schedule = Schedule()
    assert schedule.temperature(0) == 5.0
    assert schedule.temperature(1) == pytest.approx(0.087)
    # the paper's factor exp(-0.045) an epoch, over 90 epochs
    assert schedule.temperature(1 / 90) / schedule.temperature(0) == pytest.approx(0.956, abs=1e-3)
    assert schedule.entropy(0) == 1
    assert schedule.entropy(1) == pytest.approx(schedule.last_entropy)


def test_multiplier_grows_over_the_budget_and_turns_negative_under_it() -> None:
    logits = GateLogits(SPACE)
    expected = float(COST.expected(logits.probabilities()).detach())
    for factor, sign in ((0.5, 1), (2.0, -1)):
        loss = BudgetLoss([COST], [expected * factor], ControlSettings())
        loss(torch.zeros(()), logits, target_entropy=1.0)
        assert sign * loss.multipliers[0] > 0
        assert loss.entropy_multiplier == pytest.approx(0, abs=1e-6)


def test_weight_steps_learn_from_the_given_network() -> None:
    given = build(SPACE.child(SPACE.largest()), torch.Generator().manual_seed(1))
    settings = SETTINGS.model_copy(update={"teacher": "original"})
    budgets = [Budget(COST, (LOW + HIGH) / 2)]
    search = Searcher(SPACE, few_images(), budgets, settings, weights=given.state_dict())
    assert search.teacher is not None
    batch = next(search.parts.batches(search.for_weights, 8, 0, 0))
    scores = torch.randn(8, SPACE.classes, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        taught = (given.eval()(batch.images) / TEMPERATURE).softmax(1)
        own = (scores / TEMPERATURE).log_softmax(1)
        divergence = (taught * (taught.log() - own)).sum()
        plain = -scores.log_softmax(1)[range(8), batch.labels].sum()
        expected = (1 - TAUGHT_SHARE) * plain + TAUGHT_SHARE * TEMPERATURE**2 * divergence
        assert float(search._loss(scores, batch)) == pytest.approx(float(expected), rel=1e-5)
    before = {name: value.clone() for name, value in search.teacher.network.state_dict().items()}
    search.called.train()
    next(search.train_weights(Agreement(search.machine, lambda: None)))
    assert all(torch.equal(value, before[name]) for name, value in search.teacher.network.state_dict().items())


def test_a_teacher_needs_weights_for_the_classes() -> None:
    settings = SETTINGS.model_copy(update={"teacher": "original"})
    with pytest.raises(DmaskError, match="the teacher 'original' is a network with trained weights for the classes"):
        searcher(settings)
