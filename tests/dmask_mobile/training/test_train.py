from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.training.checkpoint import load_checkpoint, load_weights, save_weights
from dmask_mobile.training.train import TrainSettings, train_child
from tests.dmask_mobile.small import SPACE, few_images

CHILD = SPACE.child(SPACE.largest())
SETTINGS = TrainSettings(epochs=3, batch_size=64, learning_rate=0.1)


class InterruptedTrainingError(Exception):
    pass


def test_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    data = few_images()
    undisturbed = build(CHILD)
    train_child(undisturbed, data, SETTINGS, tmp_path / "a.pt")

    def stop_after_one(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 1:
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        train_child(build(CHILD), data, SETTINGS, tmp_path / "b.pt", stop_after_one)
    resumed = build(CHILD, torch.Generator().manual_seed(99))
    train_child(resumed, data, SETTINGS, tmp_path / "b.pt")
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_learns(tmp_path: Path) -> None:
    """Four classes, told apart by the quadrant that is bright: easy, but only for a network that learns."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (800,), generator=generator)
    images = torch.randint(0, 100, (800, 3, 16, 16), dtype=torch.uint8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 8 * (label // 2) :][:, :8, 8 * (label % 2) :][:, :, :8] += 120
    examples = ImageSet.in_memory(images, labels)
    data = ImageData("quadrants", "digest", tuple("abcd"), examples, examples, (0.3,) * 3, (0.2,) * 3, flip=False)
    child = SPACE.with_classes(4).child(SPACE.largest())
    settings = TrainSettings(epochs=4, batch_size=32, learning_rate=0.05)
    assert train_child(build(child), data, settings, tmp_path / "t.pt") > 0.9


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(
        DmaskError, match=r"train: the loss is (nan|inf|[\d.e+]+) at epoch \d, step \d+ .*lower the learning rate"
    ):
        train_child(build(CHILD), few_images(), settings, tmp_path / "t.pt")


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = few_images(128)
    train_child(build(CHILD), data, SETTINGS.model_copy(update={"epochs": 1}), tmp_path / "t.pt")
    with pytest.raises(DmaskError, match=r"other settings: epochs is 1 there, 3 now; .*--restart"):
        train_child(build(CHILD), data, SETTINGS, tmp_path / "t.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_corrupt_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(DmaskError, match=r"checkpoint '.*c\.pt' does not load.*; restore the file, or .*--restart"):
        load_checkpoint(path)


def test_weights_remember_their_child(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network = build(CHILD, torch.Generator().manual_seed(5))
    save_weights(path, network, CHILD.digest())
    again = build(CHILD)
    load_weights(path, again, CHILD.digest())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(DmaskError, match=f"belong to child {CHILD.digest()}, not other"):
        load_weights(path, again, "other")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DmaskError, match="do not load"):
        load_weights(path, again, CHILD.digest())
