"""Proper and immediate stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from dmask_mobile.data.batches import batches
from dmask_mobile.interruption import StoppedError, check_stopped, stop_signals
from dmask_mobile.nets.build import build
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.train import TrainSettings, train_child
from tests.dmask_mobile.search.test_budgets import MACS
from tests.dmask_mobile.small import SPACE, few_images
from tests.processes import DMASK, HANG_SECONDS, run_command, wait_until

pytestmark = pytest.mark.slow  # trainings, twice each

SETTINGS = SearchSettings(epochs=3, batch_size=64, min_gate_steps=10, trials=0)


def searcher() -> Searcher:
    return Searcher(SPACE, few_images(), [Budget(MACS, sum(MACS.reachable()) / 2)], SETTINGS)


@pytest.mark.usefixtures("sigint")
def test_the_first_signal_is_noted_and_the_second_acts() -> None:
    def twice() -> None:
        with stop_signals() as stopped_by:
            assert stopped_by() is None
            signal.raise_signal(signal.SIGINT)
            assert stopped_by() == signal.SIGINT
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("sigint")
def test_waiting_code_sees_what_an_outer_block_has_noted() -> None:
    with stop_signals() as stopped_by:
        with stop_signals():
            check_stopped("waiting")
        assert stopped_by() is None
        signal.raise_signal(signal.SIGINT)
        with stop_signals(), pytest.raises(StoppedError, match="waiting stopped by SIGINT"):
            check_stopped("waiting")
    check_stopped("waiting")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_take_no_signals() -> None:
    noted: list[object] = []

    def work() -> None:
        with stop_signals() as stopped_by:
            noted.append(stopped_by())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [None]


@pytest.mark.parametrize("after", [3, 9, 14])
def test_a_search_stopped_by_sigterm_in_the_middle_of_an_epoch_goes_on_bit_for_bit(after: int, tmp_path: Path) -> None:
    """An epoch has 7 weight steps and then gate steps; the search is stopped in both and repeats no step."""
    undisturbed = searcher().run(tmp_path / "a" / "c.pt")
    stopped, calls = searcher(), 0
    original = stopped.supernet.forward

    def forward(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    stopped.supernet.forward = forward
    with pytest.raises(StoppedError, match=r"search stopped by SIGTERM; .* start the same command again to continue"):
        stopped.run(tmp_path / "b" / "c.pt")
    assert calls == after
    resumed = searcher().run(tmp_path / "b" / "c.pt")
    assert torch.equal(undisturbed.logits.logits, resumed.logits.logits)
    for name, value in undisturbed.supernet.state_dict().items():
        assert torch.equal(value, resumed.supernet.state_dict()[name]), name
    logs = [(tmp_path / folder / "metrics.jsonl").read_text() for folder in "ab"]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("after", [2, 9, 18])
def test_a_training_stopped_by_sigterm_goes_on_bit_for_bit(after: int, tmp_path: Path) -> None:
    data, settings = few_images(), TrainSettings(epochs=2, batch_size=64, learning_rate=0.1)
    child = SPACE.child(SPACE.smallest())
    undisturbed, stopped, resumed = build(child), build(child), build(child, torch.Generator().manual_seed(9))
    accuracy = train_child(undisturbed, data, settings, tmp_path / "a.pt")
    calls = 0

    def count(module: nn.Module, *_: object) -> None:
        nonlocal calls
        calls += module.training  # the moving average is a copy, hook and all
        if calls == after:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped.register_forward_pre_hook(count)
    with pytest.raises(StoppedError, match="training stopped by SIGTERM"):
        train_child(stopped, data, settings, tmp_path / "b.pt")
    assert train_child(resumed, data, settings, tmp_path / "b.pt") == accuracy
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_batches_from_any_start_are_the_same_batches() -> None:
    data = few_images()
    whole = list(batches(data.train, data, 64, seed=3))
    rest = list(batches(data.train, data, 64, seed=3, start=4))
    assert len(whole) == 4 + len(rest) == 600 // 64
    for (images, labels, _), (same_images, same_labels, _) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_a_killed_search_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """kill -9 of the real command in the middle of an epoch; and SIGTERM with its exit status."""
    space = tmp_path / "space.json"
    SPACE.write(space)
    data = tmp_path / "data"
    images = few_images(256).train
    for number, (image, label) in enumerate(zip(images.pixels(), (images.labels % 3).tolist(), strict=True)):
        (data / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(data / str(label) / f"{number}.png")
    budget = f"macs={sum(MACS.reachable()) / 2:.0f}"

    def command(run: str) -> list[str]:
        return [DMASK, "search", str(space), "--data", str(data), "--budget", budget, "-o", str(tmp_path / run),
                "--epochs", "8", "--batch-size", "32"]  # fmt: skip

    done = run_command(command("a"))
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "b" / "search" / "checkpoint.pt"
    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        process = subprocess.Popen(command("b"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
        wait_until(lambda seen=seen: checkpoint.exists() and checkpoint.stat().st_mtime > seen, "a checkpoint")
        process.send_signal(number)
        assert process.wait(HANG_SECONDS) == expected
        assert not (tmp_path / "b" / "child.json").exists()
    done = run_command(command("b"))
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / run / "search" / "result.json").read_text()) for run in "ab"]
    assert results[0] == results[1]
    states = [torch.load(tmp_path / run / "search" / "checkpoint.pt", weights_only=True) for run in "ab"]
    assert torch.equal(states[0]["logits"]["logits"], states[1]["logits"]["logits"])
