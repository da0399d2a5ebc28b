"""Search and training in a run folder: one at a time, resumed only with the same settings, restarted, damaged."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dmask_mobile import api
from dmask_mobile.api.run_data import locks_run
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.costs.counts import Macs
from dmask_mobile.errors import DmaskError
from dmask_mobile.files import locked, writer_of
from dmask_mobile.run import RunFolder, RunRecord
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.checkpoint import load_checkpoint, save_checkpoint
from dmask_mobile.training.train import TrainSettings
from tests.dmask_mobile.small import SPACE, few_images
from tests.processes import DMASK, HANG_SECONDS, dmask, wait_until

MACS = Macs().on(SPACE)
BUDGET = round(sum(MACS.reachable()) / 2)
SETTINGS = SearchSettings(epochs=2, warmup=0.5, min_gate_steps=2, batch_size=64, trials=1)
TRAINING = TrainSettings(epochs=1, batch_size=64)


class InterruptedRunError(Exception):
    pass


def stop(stage: str, done: int, total: int, note: str = "") -> None:
    if stage in ("search", "train"):
        raise InterruptedRunError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of 256 images in three classes."""
    folder = tmp_path_factory.mktemp("data")
    images = few_images(256).train
    for number, (image, label) in enumerate(zip(images.pixels(), (images.labels % 3).tolist(), strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / str(label) / f"{number}.png")
    return str(folder)


def search(run: Path, data: str, budget: float = BUDGET, **options: Any) -> None:
    api.search(SPACE, data, {"macs": budget}, run, **{"settings": SETTINGS, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    search(run, data)
    api.train(run, settings=TRAINING)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A searched and trained run for one test."""
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def middle_of_a_tensor(path: Path) -> int:
    """A position in the largest member of a checkpoint; the padding between members is not read."""
    with zipfile.ZipFile(path) as checkpoint:
        tensors = [info for info in checkpoint.infolist() if "/data/" in info.filename]
    member = max(tensors, key=lambda info: info.file_size)
    start = path.read_bytes().index(member.filename.encode(), member.header_offset)
    extra = int.from_bytes(path.read_bytes()[member.header_offset + 28 : member.header_offset + 30], "little")
    return start + len(member.filename) + extra + member.file_size // 2


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["search", "train", "export", "verify"])
def test_a_folder_has_one_command_at_a_time(command: str, run: Path, data: str, tmp_path: Path) -> None:
    """The folder is also locked when it is reached by another path."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(run)
    calls: dict[str, Callable[[Path], object]] = {
        "search": lambda run: search(run, data, restart=True),
        "train": lambda run: api.train(run, settings=TRAINING),
        "export": lambda run: api.export(run, ["onnx"]),
        "verify": lambda run: api.verify(run),
    }
    with locked(run, "dmask profile"):
        for path in (run, tmp_path / "link"):
            with pytest.raises(DmaskError, match=r"another 'dmask profile' \(process \d+, .*\) is writing to '"):
                calls[command](path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("target", ["run", "run/exports/model.onnx", "run/exports/model.mlpackage"])
def test_verify_locks_the_run_on_the_command_line_too(
    target: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line gives a list; a model locks the run that contains it."""
    (tmp_path / "other.onnx").touch()
    with locked(run, "dmask train"):
        for words in ([str(tmp_path / target)], [str(tmp_path / "other.onnx"), str(tmp_path / target)]):
            assert exit_status_of_command(["verify", *words]) == 2
            assert re.search(r"another 'dmask train' \(process \d+, .*\) is writing to '", capsys.readouterr().err)


def test_runs_are_locked_once_and_in_the_order_of_their_real_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        (tmp_path / name / "exports").mkdir(parents=True)
        (tmp_path / name / "run.json").touch()
    (tmp_path / "0").symlink_to(tmp_path / "b")
    held, order = [], []
    lock = RunFolder.locked

    def noted(folder: RunFolder, doing: str) -> AbstractContextManager[None]:
        order.append(folder.path.resolve().name)
        return lock(folder, doing)

    monkeypatch.setattr(RunFolder, "locked", noted)

    @locks_run("dmask verify")
    def look(target: list[str], *, run: Path | None = None) -> None:
        held.extend(name for name in ("a", "b") if writer_of(tmp_path / name))

    look([str(tmp_path / "0"), str(tmp_path / "b" / "exports" / "model.onnx")], run=tmp_path / "a")
    assert held == order == ["a", "b"]
    assert not any(writer_of(tmp_path / name) for name in ("a", "b"))
    assert not (tmp_path / "b" / "exports" / ".lock").exists()


@pytest.mark.slow
def test_two_searches_in_one_folder(tmp_path: Path, data: str) -> None:
    """The second search is refused while the first one runs, and afterwards if it has another budget."""
    space, run = tmp_path / "space.json", tmp_path / "run"
    SPACE.write(space)

    def arguments(budget: int) -> list[str]:
        return ["search", str(space), "--data", data, "--budget", f"macs={budget}", "-o", str(run),
                "--epochs", "500", "--batch-size", "32"]  # fmt: skip

    first = subprocess.Popen([DMASK, *arguments(BUDGET)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (run / "search" / "checkpoint.pt").exists() or first.poll() is not None, "a checkpoint")
    second = dmask(*arguments(BUDGET + 1000))
    assert second.returncode == 2
    assert f"another 'dmask search' (process {first.pid}" in second.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait(HANG_SECONDS) == 128 + signal.SIGTERM
    third = dmask(*arguments(BUDGET + 1000))
    assert third.returncode == 2
    assert f"budgets.macs.limit is {BUDGET:.1f} there, {BUDGET + 1000:.1f} now" in third.stderr
    assert RunRecord.read(run / "run.json").budgets[0].limit == BUDGET


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"budget": BUDGET + 1}, rf"budgets\.macs\.limit is {BUDGET} there, {BUDGET + 1} now"),
        ({"settings": SETTINGS.model_copy(update={"epochs": 3})}, r"settings\.epochs is 2 there, 3 now"),
        ({"settings": SETTINGS.model_copy(update={"gate_learning_rate": 0.1})}, r"gate_learning_rate is 0\.05 there"),
    ],
)
def test_a_search_goes_on_only_as_it_began(options: dict[str, Any], difference: str, data: str, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        search(tmp_path / "run", data, progress=stop)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(DmaskError, match=rf"belongs to a search with other settings: .*{difference}"):
        search(tmp_path / "run", data, **options)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_finished_search_begins_anew_when_told_to(run: Path, data: str) -> None:
    """A restart removes the earlier search, but only if all checks pass."""
    folder = RunFolder(run)
    before = (folder.search_result.read_bytes(), folder.child_path.read_bytes(), folder.weights_path.read_bytes())
    with pytest.raises(DmaskError, match=r"already contains a finished search; start again with --restart, or choose"):
        search(run, data, settings=SETTINGS.model_copy(update={"epochs": 3}))
    with pytest.raises(DmaskError, match=r"budget macs=1 macs is below what"):
        search(run, data, 1, restart=True)
    assert before[:2] == (folder.search_result.read_bytes(), folder.child_path.read_bytes())
    search(run, data, settings=SETTINGS.model_copy(update={"epochs": 3}), restart=True)
    record = folder.record()
    assert record.search_settings is not None
    assert record.search_settings["epochs"] == 3
    assert record.accuracy is None
    assert len((run / "search" / "metrics.jsonl").read_text().splitlines()) == 3
    assert folder.weights_path.read_bytes() == before[2]  # training is another stage


def test_a_finished_training_begins_anew_when_told_to(run: Path) -> None:
    other = TRAINING.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(DmaskError, match=r"learning_rate is 0\.2 there, 0\.1 now; .* start again with --restart"):
        api.train(run, settings=other)
    weights = RunFolder(run).weights_path.read_bytes()
    api.train(run, settings=other, restart=True)
    assert RunFolder(run).weights_path.read_bytes() != weights
    record = RunFolder(run).record()
    assert record.train_settings == other.model_dump(mode="json")
    assert record.accuracy == max(record.compared.values())
    assert set(record.compared) == {"plain", "averaged"}


def test_a_dry_run_writes_nothing(run: Path, data: str, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}

    before = files()
    training = api.estimate_train(run, settings=TRAINING)
    searching = api.estimate_search(SPACE, data, {"macs": BUDGET}, settings=SETTINGS)
    assert files() == before
    assert [step.kind for step in training.steps] == ["training", "validation"]
    assert [step.kind for step in searching.steps] == ["weight steps", "gate steps", "trial steps"]
    assert min(training.seconds, searching.seconds) > 0


def test_a_search_does_not_take_the_folder_of_a_network_from_elsewhere(tmp_path: Path, data: str) -> None:
    api.start_run(SPACE.child(SPACE.smallest()), tmp_path / "run")
    before = (tmp_path / "run" / "child.json").read_bytes()
    for restart in (False, True):
        with pytest.raises(
            DmaskError, match="contains a network that was not found by a search; choose another run folder"
        ):
            search(tmp_path / "run", data, restart=restart)
    assert (tmp_path / "run" / "child.json").read_bytes() == before


@pytest.mark.parametrize("name", ["design.json", "sweep.json"])
def test_the_folder_of_a_sweep_is_no_run_folder(name: str, tmp_path: Path, data: str) -> None:
    (tmp_path / name).write_text("{}")
    for begin in (lambda: search(tmp_path, data), lambda: api.start_run(SPACE.child(SPACE.smallest()), tmp_path)):
        with pytest.raises(
            DmaskError, match=r"' is the folder of a sweep, whose runs are in '.*/runs'; choose another"
        ):
            begin()
    assert not (tmp_path / "run.json").exists()


def test_a_flipped_bit_in_weights_is_found_by_export_and_verify(run: Path) -> None:
    api.export(run, ["onnx"])
    path = RunFolder(run).weights_path
    flip(path, path.stat().st_size // 2)
    for use in (lambda: api.export(run, ["onnx"]), lambda: api.verify(run)):
        with pytest.raises(
            DmaskError, match=r"child\.safetensors' cannot be loaded: its checksum differs from the one in run\.json"
        ):
            use()


def test_a_flipped_bit_in_a_checkpoint_is_found_at_resume_and_by_the_slice(run: Path, data: str) -> None:
    folder = RunFolder(run)
    for path in (folder.search_checkpoint, folder.train_checkpoint):
        flip(path, middle_of_a_tensor(path))
    with pytest.raises(DmaskError, match=r"train\.pt' is damaged: its content does not match its checksum"):
        api.train(run, settings=TRAINING)
    with pytest.raises(DmaskError, match=r"search/checkpoint\.pt' is damaged"):
        api.train(run, settings=TRAINING.model_copy(update={"init": "supernet"}), restart=True)
    folder.search_result.unlink()
    with pytest.raises(DmaskError, match=r"search/checkpoint\.pt' is damaged"):
        search(run, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": -1}, r"epoch must be an integer from 0 to 2, got -1"),
        ({"epoch": 3}, r"epoch must be an integer from 0 to 2, got 3"),
        ({"steps": [[[0.1, 0.2]] * 10**5, []]}, r"weight steps must be a list of at most 0"),
        ({"steps": 3}, r"steps must be two lists"),
        ({"baseline": "x"}, r"baseline must be a finite number, got 'x'"),
        ({"supernet": {}}, r"supernet has no '"),
        ({"logits": {"logits": torch.full((2, 2), 1.0)}}, r"logits: 'logits' must be float32 of shape"),
        ({"noise": torch.zeros(3, dtype=torch.uint8)}, r"noise must be uint8 of shape"),
        ({"loss": {"multipliers": [], "entropy_multiplier": 0.0}}, r"loss: multipliers must be a list of 1"),
        ({"gate_optimizer": None}, r"gate_optimizer must be a mapping, got NoneType"),
        ({"history": []}, r"history must have one entry for each of 2 epochs"),
        ({"trials": [[1.0, 0.5, 0]]}, r"trial: a row must be two numbers and \d+ options, got \[1\.0, 0\.5, 0\]"),
        ({"evaluations": 3}, r"the evaluations must be a list, got int"),
        ({"more": 1}, r"it has the unknown key 'more'"),
    ],
)
def test_a_search_checkpoint_of_wrong_content_is_refused(
    change: dict[str, Any], message: str, run: Path, data: str
) -> None:
    folder = RunFolder(run)
    folder.search_result.unlink()
    save_checkpoint(folder.search_checkpoint, load_checkpoint(folder.search_checkpoint) | change)
    with pytest.raises(DmaskError, match=rf"checkpoint\.pt' does not fit its search: {message}"):
        search(run, data)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("run.json", {"accuracy": 1.5}, r"accuracy: .*less than or equal to 1"),
        ("run.json", {"class_names": ["a", "b"]}, r"run\.json': 2 class names for the 3 classes of the space$"),
        (
            "run.json",
            {"budgets": [{"cost": "macs", "limit": limit, "unit": "macs"} for limit in (1, 2)]},
            r"run\.json': it has two budgets for 'macs'$",
        ),
        ("run.json", {"preprocessing.source_resolution": 0}, r"source_resolution: .*greater than or equal to 1"),
        (
            "run.json",
            {"preprocessing.mean": [0.5], "preprocessing.std": [0.5]},
            r"run\.json' has 1 means in preprocessing, but child\.json has 3 channels",
        ),
        ("run.json", {"space.input.resolutions": [0]}, r"resolutions"),
        ("run.json", {"budgets": [{"cost": "macs", "limit": -1, "unit": "macs"}]}, r"limit: .*greater than 0, got -1"),
        ("result.json", {"choice": {"indices": [0]}}, r"a choice has 1 decisions, but the space has \d+"),
        (
            "result.json",
            {"choice.indices": [9] * 13},
            r"'resolution' has 1 options, but the choice is number 9 \(counted from 0\)",
        ),
        ("result.json", {"choice.indices": [-1] * 13}, r"indices.*greater than or equal to 0"),
        ("result.json", {"costs": []}, r"result\.json' has 0 costs for 1 budgets of run\.json"),
        ("result.json", {"expected": [1, 2]}, r"result\.json' has 2 expected costs for 1 budgets"),
        ("result.json", {"trials.0.costs": []}, r"result\.json' has 0 costs of a trial for 1 budgets"),
        ("result.json", {"probabilities": {}}, r"its probabilities belong to other decisions"),
        ("result.json", {"probabilities.resolution": [2.0]}, r"the probabilities of 'resolution' must be at least 0"),
    ],
)
def test_records_of_wrong_content_are_refused(name: str, change: dict[str, Any], message: str, run: Path) -> None:
    path = run / name if name == "run.json" else run / "search" / name

    def apply(content: dict[str, Any]) -> None:
        for key, value in change.items():
            *above, last = key.split(".")
            place = content
            for part in above:
                place = place[int(part) if part.isdigit() else part]
            place[last] = value

    edit(path, apply)
    with pytest.raises(DmaskError, match=message):
        api.train(run, settings=TRAINING.model_copy(update={"init": "supernet"}), restart=True)


def test_a_number_beyond_floats_in_a_record_is_refused(run: Path) -> None:
    path = run / "run.json"
    path.write_text(path.read_text().replace('"accuracy": ', '"accuracy": 1e400, "before": '))
    with pytest.raises(DmaskError, match=r"accuracy: .*finite number, got inf"):
        api.train(run, settings=TRAINING)


@pytest.mark.slow
def test_what_a_kill_left_is_repaired_by_the_next_start(tmp_path: Path, data: str) -> None:
    """The search was killed between checkpoint and log, and left a temporary file."""
    run = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        search(run, data, progress=stop)
    killed = f"""
import os, pathlib
from dmask_mobile.records.base import temporary_beside
temporary_beside(pathlib.Path({str(run / "search" / "checkpoint.pt")!r})).__enter__()
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert len(list((run / "search").glob(".checkpoint.pt.*"))) == 1
    (run / "search" / "metrics.jsonl").unlink()
    search(run, data)
    lines = [json.loads(line) for line in (run / "search" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert not list((run / "search").glob(".checkpoint.pt.*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["search", "train"])
def test_a_full_disk_ends_with_status_2_and_one_line(stage: str, run: Path, data: str, tmp_path: Path) -> None:
    """A limit of 20 KB for files simulates a full disk; without the limit the same command succeeds."""
    space = tmp_path / "space.json"
    SPACE.write(space)
    command = {
        "search": [DMASK, "search", str(space), "--data", data, "--budget", f"macs={BUDGET}", "-o", str(run),
                   "--epochs", "2", "--warmup", "0.5", "--restart"],
        "train": [DMASK, "train", str(run), "--epochs", "1", "--restart"],
    }[stage]  # fmt: skip

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
    assert full.returncode == 2, full.stderr
    assert "cannot write" in full.stderr
    assert "free some space and start the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert "terminate" not in full.stderr
    assert dmask(*command[1:-1]).returncode == 0
