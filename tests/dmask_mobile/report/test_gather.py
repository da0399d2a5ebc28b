"""The content of the report of a run, read only from its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmask_mobile.api.reporting import gather_report
from dmask_mobile.cli.tables import search_summary
from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.report.accuracies import accuracy_view
from dmask_mobile.report.records import RunView
from dmask_mobile.run import RunFolder, RunRecord, TrialRecord
from dmask_mobile.training.train import TrainSettings
from tests.dmask_mobile.report.factory import (
    CHILD,
    CREATED,
    EPOCHS,
    HOSTILE,
    NAMES,
    PREPROCESSING,
    SPACE,
    VERSIONS,
    WEIGHTS,
    searched_run,
    trained_run,
    whole_run,
)
from tests.latency_tables.factory import OFFSET_MS, SCALE, block_ms, network_ms


def view_of(folder: RunFolder) -> RunView:
    (run,) = gather_report(folder.path).runs
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return view_of(whole_run(tmp_path_factory.mktemp("whole") / "run"))


def test_failures_come_first_and_decide(whole: RunView) -> None:
    assert whole.state == "failed"
    assert whole.verdicts == ("failed", "not verified", *["passed"] * 6, "not predicted")
    assert "1 failed, 1 not verified, 6 passed, 1 not predicted" in whole.headline
    assert [artifact.state for artifact in whole.artifacts] == ["failed", "verified"]


def test_blocks_are_counted_and_stand_beside_the_widest(whole: RunView) -> None:
    assert whole.macs == Macs().estimate(CHILD).value == sum(block.macs for block in whole.blocks)
    assert whole.params == Params().estimate(CHILD).value
    widest = SPACE.child(SPACE.largest())
    assert [view.widest for view in whole.blocks] == list(widest.blocks)
    assert [view.name for view in whole.blocks] == [slot.name for slot in SPACE.slots]


def test_latency_is_that_of_the_table(whole: RunView) -> None:
    """The latencies in the factory's table follow a formula: offset + scale * blocks."""
    (table,) = whole.tables
    assert table.predicted_ms == pytest.approx(network_ms(CHILD))
    assert table.offset_ms == pytest.approx(OFFSET_MS)
    expected = [0 if b.kind == "skip" else SCALE * block_ms(b, size) for b, size in CHILD.located_blocks()]
    assert [block.predicted_ms for block in table.blocks] == pytest.approx(expected)
    alone = [None if b.kind == "skip" else pytest.approx(block_ms(b, size)) for b, size in CHILD.located_blocks()]
    assert [block.alone_ms for block in table.blocks] == alone
    assert [n.predicted_ms for n in table.networks] == pytest.approx([n.measured_ms for n in table.networks])


def test_a_budget_has_all_its_figures(whole: RunView) -> None:
    (budget,) = whole.budgets
    ms = network_ms(CHILD)
    figures = (budget.limit, budget.expected, budget.predicted, budget.measured)
    assert figures == pytest.approx((1.02 * ms, 1.01 * ms, ms, 1.04 * ms))
    assert budget.verdict == "passed"


def test_gates_and_curves_follow_the_log(whole: RunView) -> None:
    history = whole.history
    assert history is not None
    assert history.epochs == tuple(range(EPOCHS))
    assert (history.planned_epochs, history.warmup_epochs) == (EPOCHS, 1)
    assert history.expected[0].values == pytest.approx([1.5 - epoch / 10 for epoch in range(EPOCHS)])
    assert history.multipliers[0].values == pytest.approx([0.1 * epoch for epoch in range(EPOCHS)])
    assert history.accuracies[1].values[0] is None  # the gates do not learn in the first epoch
    width = next(gate for gate in history.gates if gate.name == "stage1.width")
    assert width.chosen == 1
    assert width.last == pytest.approx((0, 1, 0))
    assert [row[0] for row in width.probabilities] == pytest.approx([1 / 3] * 3)


def test_the_test_split_is_told(whole: RunView) -> None:
    assert (whole.accuracy, whole.accuracy_split) == (0.9, "40 test images")
    (found,) = whole.accuracies
    assert {(pair.true, pair.predicted, pair.count) for pair in found.confusions} == {
        (NAMES[k], NAMES[(k + 1) % 4], 1) for k in range(4)
    }


def test_the_commands_make_the_run_again(whole: RunView) -> None:
    lines = [command.line.split() for command in whole.commands]
    assert [line[1] for line in lines] == ["profile", "search", "train", "test", "export", "export", "verify"]
    search = lines[1]
    assert search[search.index("--epochs") + 1] == str(EPOCHS)
    assert search[search.index("--seed") + 1] == "3"
    assert search[search.index("--method") + 1] == "dmasking"  # an older run names none, as there was no other
    assert search[search.index("--warmup") + 1] == "0.25"
    assert "--weight-learning-rate" not in search  # what the command takes by itself is not said
    budget = search[search.index("--budget") + 1]
    assert float(budget.removeprefix("latency=").removesuffix("ms")) == whole.budgets[0].limit


def test_a_training_is_told_by_its_recipe(tmp_path: Path) -> None:
    folder = trained_run(tmp_path / "run")
    changes = {"augmentation.mixup": 0.3}
    settings = TrainSettings.of("imagenet", changes, epochs=7, seed=5, qat="litert")
    folder.record().model_copy(update={"train_settings": settings.model_dump(mode="json")}).write(folder.record_path)
    line = next(command.line for command in view_of(folder).commands if command.line.startswith("dmask train"))
    options = "--recipe imagenet --epochs 7 --set augmentation.mixup=0.3 --qat litert --seed 5"
    assert line == f"dmask train {tmp_path}/run {options}"
    assert view_of(trained_run(tmp_path / "old")).commands[2].line == f"dmask train {tmp_path}/old --epochs 4"


def test_the_record_is_json(whole: RunView, tmp_path: Path) -> None:
    assert json.loads(json.dumps(whole.model_dump(mode="json"), allow_nan=False))["state"] == "failed"


@pytest.mark.parametrize(("make", "missing"), [
    (searched_run, {"verdict", "numerics", "accuracy"}),
    (trained_run, {"verdict", "numerics", "accuracy"}),
])  # fmt: skip
def test_a_half_finished_run_says_what_is_next(make: object, missing: set[str], tmp_path: Path) -> None:
    run = view_of(make(tmp_path / "my run"))  # type: ignore[operator]
    assert run.state == "not yet verified"
    assert set(run.missing) == missing
    first = run.missing["verdict"].commands[0]
    assert first.startswith("dmask train" if make is searched_run else "dmask export")
    assert f"'{tmp_path}/my run'" in first  # quoted, as a shell needs it


def test_the_trials_of_a_search_are_told(tmp_path: Path) -> None:
    folder = searched_run(tmp_path)
    result = folder.result()
    trials = tuple(
        TrialRecord(child_digest="c" * 16, choice=result.choice, costs=result.costs, loss=1.5, accuracy=accuracy)
        for accuracy in (0.5, 0.25, 0.375)
    )
    result.model_copy(update={"trials": trials}).write(folder.search_result)
    said = "trained 3 children for a short time, to accuracies from 25.0% to 50.0%"
    search = gather_report([folder.path]).runs[0].search
    assert search is not None
    assert said in search.sentence
    assert "3 trials: accuracies from 25.0% to 50.0%" in list(search_summary(folder.result(), folder.record().budgets))


def test_a_network_from_elsewhere(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    RunRecord(
        created=CREATED, versions=VERSIONS, preprocessing=PREPROCESSING, class_names=NAMES
    ).write(folder.record_path)  # fmt: skip
    CHILD.write(folder.child_path)
    run = view_of(folder)
    assert set(run.missing) == {"verdict", "latency", "gates", "prediction", "numerics", "accuracy"}
    assert (run.budgets, run.accuracy) == ((), None)
    assert run.blocks[0].widest is None
    assert run.missing["gates"].commands == ()


def test_an_older_verification_is_left_out_and_told(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    content = json.loads(folder.verification_path.read_text())
    folder.verification_path.write_text(json.dumps(content | {"version": 2}))
    run = view_of(folder)
    assert run.state == "not yet verified"
    assert any("version 2 of dmask-verification" in note for note in run.notes)


def test_a_verification_of_another_child_is_left_out(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    content = json.loads(folder.verification_path.read_text())
    folder.verification_path.write_text(json.dumps(content | {"child_digest": "0" * 16}))
    run = view_of(folder)
    assert run.state == "not yet verified"
    assert any("about another child" in note for note in run.notes)


def test_a_test_of_other_weights_is_left_out(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    content = json.loads(folder.test_path.read_text())
    folder.test_path.write_text(json.dumps(content | {"weights_sha256": WEIGHTS[::-1]}))
    run = view_of(folder)
    assert run.accuracies == ()
    assert run.accuracy == 0.875  # that of the training
    assert any("other weights" in note for note in run.notes)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    folder.verification_path.write_text('{"format": "dmask-verification", "version": 3}')
    with pytest.raises(DmaskError, match=r"verification\.json': key 'child_digest' is missing"):
        gather_report(folder.path)


def test_a_table_that_cannot_predict_says_why(tmp_path: Path) -> None:
    folder = searched_run(tmp_path / "run")
    table = folder.tables_path / "table.jsonl"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if '"network"' not in line) + "\n")
    run = view_of(folder)
    assert "0 whole networks" in run.tables[0].problem
    assert "0 whole networks" in run.missing["latency"].why


def test_the_form_of_version_1_is_read(tmp_path: Path) -> None:
    folder = searched_run(tmp_path / "run")
    for path in (folder.record_path, folder.search_result):
        content = json.loads(path.read_text())
        if "lower_bound_relaxed" in content:
            content["floor_dropped"] = content.pop("lower_bound_relaxed")
        path.write_text(json.dumps(content | {"version": 1}))
    assert view_of(folder).search is not None


def test_a_log_with_a_nan_and_a_line_that_is_being_written(tmp_path: Path) -> None:
    folder = searched_run(tmp_path / "run")
    text = folder.metrics_path.read_text().replace('"entropy": 1.0', '"entropy": NaN')
    folder.metrics_path.write_text(text + '{"epoch": 6, "ent')
    history = view_of(folder).history
    assert history is not None
    assert history.entropy[0].values[0] is None
    assert history.num_epochs == EPOCHS


def test_a_damaged_log_names_its_line(tmp_path: Path) -> None:
    folder = searched_run(tmp_path / "run")
    lines = folder.metrics_path.read_text().splitlines(keepends=True)
    folder.metrics_path.write_text("".join([lines[0], '{"epoch": "first"}\n', *lines[2:]]))
    with pytest.raises(DmaskError, match=r"metrics\.jsonl', line 2: epoch: .*integer"):
        gather_report(folder.path)


def test_of_many_classes_only_the_hardest_are_kept(tmp_path: Path) -> None:
    count = 1000
    rows = tuple(tuple(10 * (k == j) + (j == 0 and k % 2) for j in range(count)) for k in range(count))
    found = AccuracyRecord.from_confusion(
        rows, split="val", data_digest="d", weights_sha256=WEIGHTS, class_names=tuple(map(str, range(count)))
    )
    view = accuracy_view(found)
    assert (view.matrix, view.num_classes, len(view.classes)) == ((), count, 100)
    assert {pair.predicted for pair in view.confusions} == {"0"}
    assert view.classes[0].accuracy == pytest.approx(10 / 11)


def test_notes_are_kept_as_text(whole: RunView) -> None:
    assert whole.notes[0] == f"note {HOSTILE}"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="is not a run folder"):
        gather_report(tmp_path)
    with pytest.raises(DmaskError, match="1 to 20 runs, got 0"):
        gather_report([])
    with pytest.raises(DmaskError, match="a run was given twice"):
        gather_report([tmp_path, tmp_path / "."])
