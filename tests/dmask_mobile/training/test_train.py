from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from dmask_mobile.data.batches import batches
from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.nets.build import build
from dmask_mobile.training.checkpoint import load_checkpoint, load_weights, save_weights
from dmask_mobile.training.distillation import Teacher
from dmask_mobile.training.estimate import estimate_training
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer, TrainSettings, train_child
from tests.dmask_mobile.small import SPACE, few_images

CHILD = SPACE.child(SPACE.largest())
SETTINGS = TrainSettings(epochs=3, batch_size=64, learning_rate=0.1)


class SignalAt:
    """A hook that sends this process SIGTERM in its n-th forward pass of training."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, module: torch.nn.Module, _: object) -> None:
        self.left -= module.training
        if self.left == 0 and module.training:
            os.kill(os.getpid(), signal.SIGTERM)


class InterruptedTrainingError(Exception):
    pass


def test_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    data = few_images()
    undisturbed = build(CHILD)
    train_child(undisturbed, data, SETTINGS, tmp_path / "a.pt")

    def stop_after_one(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train":
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        train_child(build(CHILD), data, SETTINGS, tmp_path / "b.pt", stop_after_one)
    resumed = build(CHILD, torch.Generator().manual_seed(99))
    train_child(resumed, data, SETTINGS, tmp_path / "b.pt")
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_learns(tmp_path: Path) -> None:
    """Four classes that differ by their bright quadrant, which is easy to learn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (800,), generator=generator)
    images = torch.randint(0, 100, (800, 3, 16, 16), dtype=torch.uint8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 8 * (label // 2) :][:, :8, 8 * (label % 2) :][:, :, :8] += 120
    examples = ImageSet.in_memory(images, labels)
    data = ImageData("quadrants", "digest", tuple("abcd"), examples, examples, (0.3,) * 3, (0.2,) * 3, flip=False)
    child = SPACE.with_classes(4).child(SPACE.largest())
    settings = TrainSettings(epochs=4, batch_size=32, learning_rate=0.05)
    assert train_child(build(child), data, settings, tmp_path / "t.pt").accuracy > 0.9


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(
        DmaskError, match=r"train: the loss is (nan|inf|[\d.e+]+) at epoch \d, step \d+ .*lower the learning rate"
    ):
        train_child(build(CHILD), few_images(), settings, tmp_path / "t.pt")


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    data = few_images(128)
    train_child(build(CHILD), data, SETTINGS.model_copy(update={"epochs": 2}), tmp_path / "t.pt")
    for change, said in (({"epochs": 1}, "epochs is 2 there, 1 now"), ({"learning_rate": 0.2}, "learning_rate is 0.1")):
        settings = SETTINGS.model_copy(update={"epochs": 2, **change})
        with pytest.raises(DmaskError, match=rf"other settings: {said}.*--epochs may grow.*--restart"):
            train_child(build(CHILD), data, settings, tmp_path / "t.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_corrupt_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(DmaskError, match=r"checkpoint '.*c\.pt' cannot be loaded.*; restore the file, or .*--restart"):
        load_checkpoint(path)


def test_weights_remember_their_child(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network = build(CHILD, torch.Generator().manual_seed(5))
    save_weights(path, network, CHILD.digest())
    again = build(CHILD)
    load_weights(path, again, CHILD.digest())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(DmaskError, match=f"belong to child {CHILD.digest()}, not to other"):
        load_weights(path, again, "other")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DmaskError, match="cannot be loaded"):
        load_weights(path, again, CHILD.digest())


def test_parts_of_a_batch_give_the_gradient_of_the_batch() -> None:
    """Norms are in evaluation mode, because in training mode each part is normalized separately."""
    gradients = []
    for parts in (1, 3):
        settings = SETTINGS.model_copy(update={"accumulate": parts})
        trainer = Trainer(build(CHILD), few_images(64), settings, Machine())
        trainer.called.eval()
        batch = list(batches(trainer.data.train, trainer.data, 64, 0, reading=trainer.reading))
        assert len(batch) == parts
        loss, _, count = trainer._add_gradients(batch)
        assert count == 64
        gradients.append((loss, torch.cat([p.grad.flatten() for p in trainer.state.network.parameters()])))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-6)


def test_the_better_of_plain_and_averaged_weights_is_kept() -> None:
    for plain, averaged in ((0.5, 0.6), (0.6, 0.5), (0.5, 0.5)):
        trainer = Trainer(build(CHILD), few_images(64), SETTINGS, Machine())
        assert trainer.state.averaged is not None
        for parameter in trainer.state.averaged.module.parameters():
            parameter.data.fill_(7)
        trainer.state.accuracies = {"plain": plain, "averaged": averaged}
        assert trainer.keep_better() == (max(plain, averaged), plain, averaged)
        is_averaged = all(bool((parameter == 7).all()) for parameter in trainer.state.network.parameters())
        assert is_averaged == (averaged > plain)


def test_a_dry_run_makes_two_steps_and_scales_them() -> None:
    trainer = Trainer(build(CHILD), few_images(600), SETTINGS, Machine())
    found = estimate_training(trainer)
    assert trainer.state.epoch == 0
    assert trainer.state.step == 2
    training, validation = found.steps
    assert (training.num_steps, validation.num_steps) == (3 * 9, 3)
    assert found.seconds == training.num_steps * training.seconds_per_step + 3 * validation.seconds_per_step > 0
    assert found.peak_memory_bytes > 2**20


@pytest.mark.slow
def test_every_part_of_a_recipe_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """A training with all of these, stopped in the middle of an epoch, with and without workers."""
    recipe = {
        "epochs": 2, "batch_size": 32, "accumulate": 2, "optimizer": "rmsproptf", "learning_rate": 0.005,
        "drop_path": 0.3, "clip_norm": 1.0, "distillation": {"teacher": "supernet"},
        "augmentation": {"crop": [0.5, 1], "rand_augment": 7, "erasing": 0.3, "mixup": 0.2, "cutmix": 0.5},
    }  # fmt: skip
    settings, data = TrainSettings.model_validate(recipe), few_images(128)
    teacher = Teacher(build(CHILD, torch.Generator().manual_seed(8)), torch.device("cpu"))
    ended = []
    for name, workers in (("undisturbed", 0), ("stopped", 2)):
        data.train.pictures.workers = workers
        if name == "stopped":
            stopped = build(CHILD)
            stopped.register_forward_pre_hook(SignalAt(11))
            with pytest.raises(StoppedError):
                train_child(stopped, data, settings, tmp_path / name, teacher=teacher)
        network = build(CHILD)
        train_child(network, data, settings, tmp_path / name, teacher=teacher)
        ended.append(network.state_dict())
    data.train.pictures.workers = 0
    assert all(torch.equal(value, ended[1][key]) for key, value in ended[0].items())
