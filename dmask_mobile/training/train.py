"""Training of a child network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record
from dmask_mobile.training.checkpoint import load_checkpoint, save_checkpoint, seeded
from dmask_mobile.training.data import AugmentedImages, ImageData, ImageSet, normalized

EXPLODED = 100  # times the loss of guessing


class TrainSettings(Record):
    """The recipe: SGD with Nesterov momentum, one warm-up epoch, cosine decay, label smoothing.

    ``init`` says where the weights came from: ``scratch`` or the child's slice of the ``supernet``.
    """

    init: Literal["scratch", "supernet"] = "scratch"
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 0.2
    weight_decay: float = 5e-5
    label_smoothing: float = 0.1
    seed: int = 0


def num_batches(images: ImageSet, batch_size: int) -> int:
    """Batches of an epoch: full ones only, or one that is smaller."""
    return max(1, len(images.labels) // batch_size)


def batches(
    images: ImageSet, data: ImageData, batch_size: int, seed: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented, normalized training batches from number ``start`` on.

    ``seed`` fixes their order and augmentation, whatever ``start`` is.
    """
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(seed))
    wanted = [chunk.tolist() for chunk in torch.split(order, batch_size)][start : num_batches(images, batch_size)]
    with seeded(seed):
        loaded = iter(DataLoader(AugmentedImages(images, data), batch_sampler=wanted))
    for number in range(start, start + len(wanted)):
        with seeded(seed * 1_000_003 + number):  # each batch by itself, so that nobody else's draws matter
            images_N3RR, labels_N = next(loaded)
        yield normalized(images_N3RR, data), labels_N


@torch.no_grad()
def evaluate(network: nn.Module, images: ImageSet, data: ImageData, batch_size: int = 500) -> float:
    """Top-1 accuracy in 0..1 of ``network`` in evaluation mode."""
    network.eval()
    correct = 0
    for start in range(0, len(images.labels), batch_size):
        pixels, labels = images.subset(torch.arange(len(images.labels))[start : start + batch_size])
        correct += int((network(normalized(pixels, data)).argmax(1) == labels).sum())
    return correct / len(images.labels)


def check_loss(cross_entropy: Tensor, classes: int, stage: str, epoch: int, step: int) -> float:
    """The loss as a number; stops before a broken one reaches the weights.

    Raises:
        DmaskError: when it is NaN, infinite or over 100 times the loss of guessing, ``log(classes)``.
    """
    value, most = float(cross_entropy.detach()), EXPLODED * math.log(classes)
    if not value <= most:  # NaN is not
        raise DmaskError(
            f"{stage}: the loss is {value:g} at epoch {epoch}, step {step} (at most {most:.0f} is sane);"
            " the last good epoch is kept",
            "lower the learning rate and start again, or resume from the checkpoint",
        )
    return value


def train_child(
    network: nn.Module, data: ImageData, settings: TrainSettings, checkpoint: Path, progress: Progress = silent
) -> float:
    """Trains ``network`` in place on all training images; returns its top-1 accuracy on the validation images.

    Goes on from ``checkpoint`` where that exists; writes it after every epoch and on SIGTERM or Ctrl-C.

    Raises:
        DmaskError: for a loss that is not finite, and for a checkpoint of other settings.
        StoppedError: after a signal.
    """
    network.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        network, "sgd", lr=settings.learning_rate, weight_decay=settings.weight_decay, momentum=0.9
    )
    steps = num_batches(data.train, settings.batch_size)
    schedule = CosineLRScheduler(
        optimizer, settings.epochs * steps, warmup_t=min(steps, 200), warmup_lr_init=0.01, t_in_epochs=False
    )
    identity = {**settings.model_dump(), "data": data.name, "mean": list(data.mean)}
    state: dict[str, Any] = {"settings": identity, "epoch": 0, "step": 0, "loss": 0.0, "accuracy": 0.0}
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        if state["settings"] != identity:
            raise DmaskError(
                f"'{checkpoint}' was trained with {state['settings']}, not with {identity}",
                "use the same settings and data, or delete the checkpoint",
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])

    def keep(epoch: int, step: int) -> None:
        tensors = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        position = {"epoch": epoch, "step": step, "loss": last_loss, "accuracy": accuracy}
        save_checkpoint(checkpoint, {"settings": identity, **position, **tensors})

    start, last_loss, accuracy = int(state["step"]), float(state["loss"]), float(state["accuracy"])
    with stop_signals() as stopped_by:
        for epoch in range(state["epoch"], settings.epochs):
            network.train()
            seed = settings.seed * 10_007 + epoch
            for step, (images, labels) in enumerate(batches(data.train, data, settings.batch_size, seed, start), start):
                schedule.step_update(epoch * steps + step)
                loss = F.cross_entropy(network(images), labels, label_smoothing=settings.label_smoothing)
                last_loss = check_loss(loss, data.classes, "train", epoch, step)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if signal_number := stopped_by():
                    keep(epoch, step + 1)
                    raise StoppedError(signal_number, "training")
            start, accuracy = 0, evaluate(network, data.val, data)
            keep(epoch + 1, 0)
            progress("train", epoch + 1, settings.epochs, f"loss {last_loss:.3f}, accuracy {accuracy:.1%}")
    return accuracy
