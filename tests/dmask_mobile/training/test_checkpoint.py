"""Checkpoints and weights that are damaged, belong to something else or cannot be written."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dmask_mobile.data.images import ImageData
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.training.checkpoint import (
    content_digest,
    load_checkpoint,
    load_weights,
    previous_of,
    remove_checkpoints,
    save_checkpoint,
    save_weights,
)
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trained, Trainer, TrainSettings, train_child
from tests.dmask_mobile.small import SPACE, few_images
from tests.full_disk import full_disk

CHILD = SPACE.child(SPACE.smallest())
FIRST = "blocks.0.conv.weight"
STATE = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "steps": [[0.5, 1.0]], "name": "x"}


def flipped(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", STATE)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded.keys() == STATE.keys()
    assert content_digest(loaded) == content_digest(STATE)


def test_a_digest_sees_names_types_shapes_and_values() -> None:
    values = [1, 1.0, True, "1", None, [1], torch.ones(1), torch.ones(1, 1), torch.ones(1).long(), {"a": 1}, {"b": 1}]
    assert len({content_digest(value) for value in values}) == len(values)


def test_one_flipped_bit_of_any_weight_is_found(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE)
    place = path.read_bytes().index(torch.arange(6.0).numpy().tobytes())
    for position in range(place, place + 24):
        flipped(path, position)
        with pytest.raises(
            DmaskError, match=r"c\.pt' is damaged: its content does not match its checksum; .*--restart"
        ):
            load_checkpoint(path)
        flipped(path, position)
    load_checkpoint(path)


def test_one_flipped_bit_anywhere_in_weights_is_found(tmp_path: Path) -> None:
    path, network = tmp_path / "w.safetensors", build(CHILD)
    save_weights(path, network, CHILD.digest())
    size, header = path.stat().st_size, int.from_bytes(path.read_bytes()[:8], "little")
    for position in (0, 8, 20, 60, 100, 200, header, header + 8, (header + size) // 2, size - 1):
        flipped(path, position)
        with pytest.raises(DmaskError, match=r"weights '.*w\.safetensors' (cannot be loaded|belong)"):
            load_weights(path, build(CHILD), CHILD.digest())
        flipped(path, position)
    load_weights(path, network, CHILD.digest())


def test_files_of_older_versions_have_no_checksum_and_load(tmp_path: Path) -> None:
    network = build(CHILD, torch.Generator().manual_seed(4))
    save_file(network.state_dict(), tmp_path / "w.safetensors", {"child_digest": CHILD.digest()})
    again = build(CHILD)
    load_weights(tmp_path / "w.safetensors", again, CHILD.digest())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    torch.save(STATE, tmp_path / "c.pt")
    assert content_digest(load_checkpoint(tmp_path / "c.pt")) == content_digest(STATE)


def test_weights_in_the_place_of_others_are_found(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, build(CHILD), CHILD.digest())
    with pytest.raises(DmaskError, match=r"its checksum differs from the one in run\.json"):
        load_weights(path, build(CHILD), CHILD.digest(), "0" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({FIRST: None}, r"weights has no 'blocks\.0\.conv\.weight'"),
        ({"more": torch.ones(1)}, r"weights has the unknown key 'more'"),
        ({FIRST: torch.ones(1)}, r"must be float32 of shape \[8, 3, 3, 3\], got float32 of shape \[1\]"),
        ({FIRST: torch.ones(8, 3, 3, 3).half()}, r"must be float32 of shape .*, got float16"),
        ({FIRST: torch.full((8, 3, 3, 3), torch.nan)}, r"contains values that are not finite"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, torch.Tensor | None], message: str, tmp_path: Path) -> None:
    state = {name: value for name, value in (build(CHILD).state_dict() | change).items() if value is not None}
    save_file(state, tmp_path / "w.safetensors", {"child_digest": CHILD.digest()})
    with pytest.raises(DmaskError, match=rf"weights '.*' do not fit their child: .*{message}"):
        load_weights(tmp_path / "w.safetensors", build(CHILD), CHILD.digest())


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("true",))


def test_a_refused_checkpoint_is_one_line_without_advice_to_load_it_unsafely(tmp_path: Path) -> None:
    torch.save({"a": Code()}, tmp_path / "c.pt")
    with pytest.raises(
        DmaskError, match=r"cannot be loaded: it contains more than tensors, numbers and text; "
    ) as error:
        load_checkpoint(tmp_path / "c.pt")
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tensor_of_a_huge_shape_over_few_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "c.pt")
    with pytest.raises(DmaskError, match=r"its tensors claim 4,000,000,000,000 bytes, but the file has"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(DmaskError, match="it is compressed"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_fifo_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.pt")
    with pytest.raises(DmaskError, match="it is not a regular file"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_full_disk_is_one_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    """EFBIG stands for ENOSPC and EDQUOT too."""
    network = build(CHILD)
    for name in ("c.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(b"before")
    for name, write in (
        ("c.pt", lambda path: save_checkpoint(path, {"a": torch.zeros(10_000)})),
        ("w.safetensors", lambda path: save_weights(path, network, CHILD.digest())),
    ):
        with (
            full_disk(1000),
            pytest.raises(DmaskError, match=rf"cannot write [\d,]+ bytes to '.*{name}': {os.strerror(errno.EFBIG)}; "),
        ):
            write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pt", "w.safetensors"]


SETTINGS = TrainSettings(epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ImageData]:
    """A checkpoint after the first of two epochs, and its images."""
    path, data = tmp_path_factory.mktemp("trained") / "t.pt", few_images(128)

    class InterruptedTrainingError(Exception):
        pass

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train":
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        train_child(build(CHILD), data, SETTINGS, path, stop, child_digest=CHILD.digest())
    return load_checkpoint(path), data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": -1}, r"epoch must be an integer from 0 to 2, got -1"),
        ({"epoch": 10**30}, r"epoch must be an integer from 0 to 2, got 10{30}"),
        ({"epoch": True}, r"epoch must be an integer from 0 to 2, got True"),
        ({"epoch": 2, "step": 1}, r"step must be an integer from 0 to 0, got 1"),
        ({"step": 3}, r"step must be an integer from 0 to 2, got 3"),
        ({"accuracies": {"plain": 1.5}}, r"accuracy of the plain weights must lie in 0\.\.1, got 1\.5"),
        ({"accuracies": {"worst": 1}}, r"accuracies must belong to the plain and the averaged weights"),
        ({"averaged": None}, r"averaged must be a mapping, got NoneType"),
        ({"norms": torch.zeros(1, 3)}, r"norms must be float32 of shape \[1, \d+\], got float32 of shape \[1, 3\]"),
        ({"loss": float("nan")}, r"loss must be a finite number, got nan"),
        ({"loss": "x" * 1000}, r"loss must be a finite number, got 'x{100,200}"),
        ({"network": 3}, r"network must be a mapping, got int"),
        ({"network": {}}, r"network has no 'blocks\.0"),
        ({"optimizer": {"state": {}}}, r"optimizer has no 'param_groups'"),
        ({"optimizer": {"state": {}, "param_groups": []}}, r"optimizer must have 3 groups of parameters"),
        ({"more": 1}, r"it has the unknown key 'more'"),
        ({"epoch": 2, "accuracies": {}}, r"a finished training must have an accuracy for each of its sets of weights"),
    ],
)
def test_a_checkpoint_of_wrong_content_is_refused(
    change: dict[str, Any], message: str, trained: tuple[dict[str, Any], ImageData], tmp_path: Path
) -> None:
    content, data = trained
    save_checkpoint(tmp_path / "t.pt", content | change)
    with pytest.raises(DmaskError, match=rf"checkpoint '.*t\.pt' does not fit its training: {message}"):
        train_child(build(CHILD), data, SETTINGS, tmp_path / "t.pt", child_digest=CHILD.digest())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.zeros(2),
            r"'momentum_buffer' of parameter 0 must be float32 of shape \[.*\], got float32 of shape \[2\]",
        ),
        ("text", r"'momentum_buffer' of parameter 0 must be a tensor, got str"),
    ],
)
def test_an_optimizer_of_other_shapes_is_refused(
    value: object, message: str, trained: tuple[dict[str, Any], ImageData], tmp_path: Path
) -> None:
    content, data = trained
    optimizer = {**content["optimizer"], "state": {**content["optimizer"]["state"], 0: {"momentum_buffer": value}}}
    save_checkpoint(tmp_path / "t.pt", content | {"optimizer": optimizer})
    with pytest.raises(DmaskError, match=message):
        train_child(build(CHILD), data, SETTINGS, tmp_path / "t.pt", child_digest=CHILD.digest())


@pytest.mark.parametrize(
    ("settings", "digest", "message"),
    [
        ({"epochs": 1}, CHILD.digest(), r"other settings: epochs is 2 there, 1 now; .* start again with --restart"),
        ({"learning_rate": 0.1}, CHILD.digest(), r"other settings: learning_rate is 0\.2 there, 0\.1 now"),
        ({}, "other", rf"other settings: child is '{CHILD.digest()}' there, 'other' now"),
    ],
)
def test_a_training_goes_on_only_as_it_began(
    settings: dict[str, Any], digest: str, message: str, trained: tuple[dict[str, Any], ImageData], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "t.pt", trained[0])
    with pytest.raises(DmaskError, match=message):
        train_child(
            build(CHILD), trained[1], SETTINGS.model_copy(update=settings), tmp_path / "t.pt", child_digest=digest
        )


def test_weights_that_the_last_step_broke_reach_no_checkpoint(tmp_path: Path) -> None:
    """Six images give one step an epoch, whose loss is normal but whose gradient is infinite."""
    network = build(CHILD)
    next(network.parameters()).register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    with pytest.raises(
        DmaskError,
        match=r"train: 'blocks\.0\..*' is not finite at the end of epoch 0; the last good checkpoint is kept; lower",
    ):
        train_child(network, few_images(6), SETTINGS, tmp_path / "t.pt")
    assert not (tmp_path / "t.pt").exists()


def test_the_checkpoint_before_the_last_is_kept_and_offered(
    trained: tuple[dict[str, Any], ImageData], tmp_path: Path
) -> None:
    content, data = trained
    path = tmp_path / "t.pt"
    save_checkpoint(path, content)
    save_checkpoint(path, content | {"loss": 1.0})
    assert load_checkpoint(previous_of(path))["loss"] == content["loss"]

    def go_on() -> Trained:
        return train_child(build(CHILD), data, SETTINGS, path, child_digest=CHILD.digest())

    newer = torch.load(path, weights_only=True) | {"version": 9}
    for refused, reason in (
        (lambda: path.write_bytes(path.read_bytes()[:-100]), "is incomplete"),
        (lambda: torch.save(newer, path), "has version 9, but this dmask-mobile reads versions up to 2"),
        (lambda: path.write_bytes(b""), "cannot be loaded"),
    ):
        refused()
        with pytest.raises(
            DmaskError,
            match=rf"checkpoint '.*t\.pt' .*{reason}.*; the checkpoint before it, 't\.previous\.pt', is valid;"
            r" continue from that one with --previous",
        ):
            go_on()
    damaged = path.read_bytes()
    with pytest.raises(DmaskError, match="other settings"):  # refused, and nothing is moved
        train_child(build(CHILD), data, SETTINGS, path, child_digest="other", previous=True)
    assert path.read_bytes() == damaged
    train_child(build(CHILD), data, SETTINGS, path, child_digest=CHILD.digest(), previous=True)
    assert (tmp_path / "t.pt.refused").read_bytes() == damaged
    assert load_checkpoint(path)["epoch"] == 2
    with pytest.raises(DmaskError, match=r"there is no checkpoint before '.*'; continue without --previous"):
        train_child(build(CHILD), data, SETTINGS, tmp_path / "other.pt", previous=True)


def test_a_checkpoint_never_goes_away_while_a_new_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is noticed when data is flushed; both checkpoints are kept, and no other file is left."""
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE)
    save_checkpoint(path, STATE | {"epoch": 1})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(before) == ["c.previous.pt", "c.pt"]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DmaskError, match="No space left"):
        save_checkpoint(path, STATE | {"epoch": 2})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    remove_checkpoints(path)
    assert list(tmp_path.iterdir()) == []


def test_more_epochs_can_be_asked_for_later(trained: tuple[dict[str, Any], ImageData], tmp_path: Path) -> None:
    """The schedule continues as if the larger number of epochs had been set from the beginning."""
    content, data = trained
    save_checkpoint(tmp_path / "t.pt", content)
    notes: list[tuple[str, int, int, str]] = []
    longer = SETTINGS.model_copy(update={"epochs": 4})
    trainer = Trainer(build(CHILD), data, longer, Machine())
    train_child(
        build(CHILD),
        data,
        longer,
        tmp_path / "t.pt",
        lambda stage, done, total, note="": notes.append((stage, done, total, note)),
        child_digest=CHILD.digest(),
    )
    assert notes[0] == ("train", 1, 4, "goes on")
    assert notes[-1][:3] == ("train", 4, 4)
    (last,) = {group["lr"] for group in load_checkpoint(tmp_path / "t.pt")["optimizer"]["param_groups"]}
    trainer.schedule.step_update(4 * trainer.steps - 1)
    assert last == trainer.state.optimizer.param_groups[0]["lr"]
