from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dmask_mobile.costs.counts import Macs
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.log import SearchLog
from dmask_mobile.search.loss_model import Trial
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from tests.dmask_mobile.small import SPACE, few_images
from tests.full_disk import full_disk

COST = Macs().on(SPACE)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def test_log_holds_every_quantity_in_both_forms(tmp_path: Path) -> None:
    settings = SearchSettings(method="dmasking", epochs=2, warmup=0.5, min_gate_steps=2, batch_size=128)
    budget = Budget(COST, sum(COST.reachable()) / 2)
    Searcher(SPACE, few_images(), [budget], settings).run(tmp_path / "c.pt")
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["gates"] == {}
    assert set(second["gates"]) == set(second["weights"]) == {"loss", "accuracy"}
    assert 0 <= second["weights"]["accuracy"] <= 1
    assert second["budgets"] == {"macs": budget.limit}
    assert len(second["control"]["multipliers"]) == 1
    assert set(second["entropies"]) == {d.name for d in SPACE.decisions if len(d.options) > 1}
    assert all(sum(p) == pytest.approx(1) for p in second["probabilities"].values())
    for tag, values in {
        "temperature": [(0, first["temperature"]), (1, second["temperature"])],
        "expected/macs": [(0, first["expected"]["macs"]), (1, second["expected"]["macs"])],
        "gates/loss": [(1, second["gates"]["loss"])],
        "control/multipliers/0": [(0, 0.0), (1, second["control"]["multipliers"][0])],
        "entropies/stem.width": [(0, 1.0), (1, second["entropies"]["stem.width"])],
        "probabilities/stem.width/1": [(0, 0.5), (1, second["probabilities"]["stem.width"][1])],
    }.items():
        assert scalars(tmp_path, tag) == [(step, pytest.approx(value, rel=1e-5)) for step, value in values], tag


def test_a_resumed_log_forgets_what_came_after_its_checkpoint_and_writes_the_last_epoch_again(tmp_path: Path) -> None:
    with SearchLog(tmp_path, []) as log:
        for epoch in range(4):
            log.write([{"epoch": number, "value": 1.0} for number in range(epoch + 1)])
    history = [{"epoch": 0, "value": 1.0}, {"epoch": 1, "value": 2.0}]
    with SearchLog(tmp_path, history):
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2  # also when it was killed before
    assert scalars(tmp_path, "value") == [(0, 1.0), (1, 2.0)]


def test_a_full_disk_ends_a_log_at_once(tmp_path: Path) -> None:
    """With the error of the write, and no traceback of a thread (pytest would make that an error)."""

    def fill() -> None:
        with SearchLog(tmp_path, []) as log:
            for epoch in range(100):
                log.write([{"epoch": epoch, "value": 1.0}])

    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        fill()
    assert len(scalars(tmp_path, "value")) > 5


def test_collapse_to_all_skip_is_warned_of(tmp_path: Path) -> None:
    settings = SearchSettings(method="dmasking", epochs=1, warmup=0.0, min_gate_steps=1, batch_size=512)
    search = Searcher(SPACE, few_images(128), [Budget(COST, COST.reachable().low * 1.2)], settings)
    with torch.no_grad():
        for index, decision in enumerate(SPACE.decisions):
            if decision.kind == "skip":
                search.logits.logits[index, 1] = 9.0
    notes: list[str] = []
    found = search.run(tmp_path / "c.pt", lambda stage, done, total, note="": notes.append(note) if note else None)
    (warning,) = found.warnings
    assert warning.startswith("all 1 blocks that may be skipped are")
    assert "lengthen the warm-up" in notes[0]
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["warnings"] == [warning]


@pytest.mark.parametrize(("accuracies", "warned"), [((), False), ((0.02, 0.07), True), ((0.02, 0.08), False)])
def test_trials_that_learned_nothing_are_warned_of(accuracies: tuple[float, ...], warned: bool) -> None:
    """With 36 classes guessing gets 1/36 right; 5% of the rest makes 7.6%."""
    search = Searcher(SPACE, few_images(128), [Budget(COST, COST.reachable().low * 1.2)], SearchSettings())
    search.state.trials = [Trial(3.5, accuracy, SPACE.smallest()) for accuracy in accuracies]
    warnings = search.metrics.warnings(search.state)
    assert [text.startswith("the best of 2 trials has an accuracy of 7.0%") for text in warnings] == [True] * warned
