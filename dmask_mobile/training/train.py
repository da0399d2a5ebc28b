"""Training of a child network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from dmask_mobile.data.batches import MAX_SEED, batches, num_batches
from dmask_mobile.data.images import ImageData, ImageSet, Normalization, normalization_of, normalized
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record
from dmask_mobile.records.setting_names import InitialWeights
from dmask_mobile.training.checkpoint import load_checkpoint, save_checkpoint
from dmask_mobile.training.restoring import (
    finite_number,
    first_difference,
    require_keys,
    restore_module,
    restore_optimizer,
    whole_number,
)

EXPLODED = 100  # times the loss of guessing
_CALMER = "lower the learning rate and begin anew: --learning-rate (dmask search: --weight-learning-rate) and --restart"

Epochs = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]


class TrainSettings(Record):
    """The recipe: SGD with Nesterov momentum, one warm-up epoch, cosine decay, label smoothing.

    ``init`` says where the weights came from: ``scratch`` or the child's slice of the ``supernet``.
    """

    init: InitialWeights = "scratch"
    epochs: Epochs = 30
    batch_size: BatchSize = 128
    learning_rate: PositiveFloat = 0.2
    weight_decay: float = Field(default=5e-5, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    seed: Seed = 0


def evaluate(network: nn.Module, images: ImageSet, data: ImageData, batch_size: int = 500) -> float:
    """Top-1 accuracy in 0..1 of ``network`` in evaluation mode."""
    confusion_KK = confusion_of(network, images, data, data.classes, batch_size)
    return int(confusion_KK.diagonal().sum()) / len(images)


@torch.no_grad()
def confusion_of(
    network: nn.Module, images: ImageSet, data: Normalization, classes: int, batch_size: int = 500
) -> Tensor:
    """How often each class (rows) was taken for each class (columns) by ``network`` in evaluation mode, (K, K) int64.

    Every image counts once.
    """
    network.eval()
    confusion_KK = torch.zeros(classes, classes, dtype=torch.int64)
    chunks = [range(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]
    for pixels, labels in images.batches(chunks):
        predicted = network(normalized(pixels, data)).argmax(1)
        confusion_KK += torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    return confusion_KK


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
            _CALMER,
        )
    return value


def check_weights(network: nn.Module, stage: str, epoch: int) -> None:
    """Stops before weights that are not finite reach a checkpoint: a last step can break them after a sane loss.

    Raises:
        DmaskError: naming the first tensor.
    """
    for name, value in network.state_dict().items():
        if not bool(value.isfinite().all()):
            raise DmaskError(
                f"{stage}: '{name}' is not finite at the end of epoch {epoch}; the last good epoch is kept", _CALMER
            )


class TrainState:
    """A child's training under way: the network, its optimizer, and the position."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network = network
        self.optimizer = optimizer
        self.epoch = self.step = 0
        self.loss = self.accuracy = 0.0

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, content: dict[str, Any], epochs: int, steps: int) -> None:
        """Takes back what `to_dict` gave, of a training of ``epochs`` with ``steps`` each.

        Raises:
            ValueError: for content that does not fit this training.
        """
        state = require_keys(content, frozenset(self.to_dict()), "it")
        self.epoch = whole_number(state["epoch"], epochs, "epoch")
        self.step = whole_number(state["step"], steps if self.epoch < epochs else 0, "step")
        self.loss, self.accuracy = (finite_number(state[key], key) for key in ("loss", "accuracy"))
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy must lie in 0..1, got {self.accuracy}")
        restore_module(self.network, state["network"], "network")
        restore_optimizer(self.optimizer, state["optimizer"], "optimizer")


def train_child(
    network: nn.Module,
    data: ImageData,
    settings: TrainSettings,
    checkpoint: Path,
    progress: Progress = silent,
    *,
    child_digest: str = "",
) -> float:
    """Trains ``network`` in place on all training images; returns its top-1 accuracy on the validation images.

    Goes on from ``checkpoint`` where that exists; writes it after every epoch and on SIGTERM or Ctrl-C. A checkpoint of
    another ``child_digest`` is refused.

    Raises:
        DmaskError: for a loss that is not finite, and for a checkpoint of other settings or another child.
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
    of_data = {"data": data.digest, **normalization_of(data)}
    identity = {**settings.model_dump(), **of_data, "child": child_digest}
    state = TrainState(network, optimizer)
    if checkpoint.exists():
        _restore(checkpoint, identity, state, steps)
    with stop_signals() as stopped_by:
        while state.epoch < settings.epochs:
            network.train()
            seed, start = settings.seed * 10_007 + state.epoch, state.step
            for step, (images, labels) in enumerate(batches(data.train, data, settings.batch_size, seed, start), start):
                schedule.step_update(state.epoch * steps + step)
                loss = F.cross_entropy(network(images), labels, label_smoothing=settings.label_smoothing)
                state.loss = check_loss(loss, data.classes, "train", state.epoch, step)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                state.step = step + 1
                if signal_number := stopped_by():
                    check_weights(network, "train", state.epoch)
                    save_checkpoint(checkpoint, {"settings": identity, **state.to_dict()})
                    raise StoppedError(signal_number, "training")
            check_weights(network, "train", state.epoch)
            state.accuracy = evaluate(network, data.val, data)
            state.epoch, state.step = state.epoch + 1, 0
            save_checkpoint(checkpoint, {"settings": identity, **state.to_dict()})
            progress("train", state.epoch, settings.epochs, f"loss {state.loss:.3f}, accuracy {state.accuracy:.1%}")
    return state.accuracy


def _restore(checkpoint: Path, identity: dict[str, Any], state: TrainState, steps: int) -> None:
    """Takes a training back to where ``checkpoint`` left it.

    Raises:
        DmaskError: for a checkpoint of other settings or another child, and for one that is damaged.
    """
    content = load_checkpoint(checkpoint)
    found = content.pop("settings", None)
    if isinstance(found, dict):  # older checkpoints do not name their child
        found.setdefault("child", identity["child"])
    if difference := first_difference(found, identity):
        raise DmaskError(
            f"'{checkpoint}' belongs to a training with other settings: {difference}",
            "use the same settings and data, or begin anew with --restart",
        )
    try:
        state.restore(content, identity["epochs"], steps)
    except ValueError as error:
        raise DmaskError(
            f"checkpoint '{checkpoint}' does not fit its training: {error}",
            "restore the file, or begin anew with --restart",
        ) from error
