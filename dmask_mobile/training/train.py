"""Trains a child network by a recipe, on any number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dmask_mobile.data.augmentation import MAX_SEED, seeded
from dmask_mobile.data.batches import Batch, Reading, batches, check_batch, num_batches
from dmask_mobile.data.images import ImageData, normalization_of
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.recipe import RecipeFields, load_recipe
from dmask_mobile.records.setting_names import InitialWeights
from dmask_mobile.training.checkpoint import content_digest, remove_checkpoints, save_checkpoint
from dmask_mobile.training.checks import Agreed, Agreement, check_loss, check_weights
from dmask_mobile.training.distillation import Teacher, distillation_loss
from dmask_mobile.training.evaluation import evaluate
from dmask_mobile.training.fake_quantization import SPREAD_WEIGHT, FakeQuantized
from dmask_mobile.training.going_on import go_on
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.recipe_parts import moving_average_of, optimizer_of, schedule_of, stochastic_depth
from dmask_mobile.training.restoring import first_difference
from dmask_mobile.training.state import TrainState

Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]


class TrainSettings(RecipeFields):
    """The settings of a recipe, the initial weights, and the seed.

    ``init``: ``scratch`` or the child's slice of the ``supernet``.
    """

    init: InitialWeights = "scratch"
    seed: Seed = 0

    @classmethod
    def of(cls, recipe: str, changes: Mapping[str, object] | None = None, **values: object) -> Self:
        """The settings of a recipe (see `load_recipe`) with some of them changed.

        Args:
            recipe: the name of a recipe, or a YAML file.
            changes: values by dotted field: ``augmentation.mixup``.
            values: values by field.

        Raises:
            DmaskError: for a recipe that does not exist or breaks a rule.
            ValidationError: for a change that breaks a rule.
        """
        content: dict[str, Any] = {**load_recipe(recipe).model_dump(include=set(RecipeFields.model_fields)), **values}
        for name, value in (changes or {}).items():
            *parents, last = name.split(".")
            _check_field(name.partition(".")[0], values)
            place = content
            for parent in parents:
                inside = place.get(parent) or {}
                if not isinstance(inside, dict):
                    raise DmaskError(
                        f"recipe: '{shown(parent)}' has no fields, got '{shown(name)}'", "name a field of a group"
                    )
                place[parent] = dict(inside)
                place = place[parent]
            place[last] = value
        settings = cls.model_validate(content)
        if settings.distillation is None or settings.distillation.weights is None:
            return settings
        absolute = {
            "weights": str(Path(settings.distillation.weights).absolute())
        }  # a run may be resumed from another folder
        return settings.model_copy(update={"distillation": settings.distillation.model_copy(update=absolute)})


def _check_field(name: str, values: Mapping[str, object]) -> None:
    """Checks that a change names a field of recipes, and that the field is not also set in another way."""
    if name not in RecipeFields.model_fields:
        raise DmaskError(
            f"recipe: unknown field '{shown(name)}'", f"it has {', '.join(sorted(RecipeFields.model_fields))}"
        )
    if name in values:
        raise DmaskError(f"recipe: '{name}' is given twice", "give it once: by its option, or by --set")


class Trained(NamedTuple):
    """Top-1 accuracies in 0..1 on the validation images: of the kept weights, the plain and the averaged weights."""

    accuracy: float
    plain: float
    averaged: float | None


class Trainer:
    """One training of ``network`` with ``settings``.

    Args:
        network: the network, which is trained in place.
        data: the images; all training images are used.
        settings: the recipe, and the seed.
        machine: device and processes.
        teacher: gives the scores that the recipe's distillation learns from.

    Raises:
        DmaskError: if a batch cannot be divided among the processes, or a recipe with ``qat`` is to be compiled.
    """

    def __init__(
        self,
        network: nn.Module,
        data: ImageData,
        settings: TrainSettings,
        machine: Machine,
        teacher: Teacher | None = None,
    ) -> None:
        if settings.qat is not None and machine.compiled:
            raise DmaskError("--qat cannot be combined with --compile", "leave out --compile")
        self.data, self.settings, self.machine, self.teacher = data, settings, machine, teacher
        self.reading = Reading(machine.share, settings.accumulate, machine.device)
        check_batch(data.train, settings.batch_size, self.reading)
        network.to(device=machine.device)
        network.to(memory_format=torch.channels_last)
        optimizer = optimizer_of(network, settings)
        self.steps = num_batches(data.train, settings.batch_size)
        self.schedule = schedule_of(optimizer, settings, self.steps)
        self.state = TrainState(network, optimizer, moving_average_of(network, settings), machine)
        self.quantized = None if settings.qat is None else FakeQuantized(network)
        self.called, self.stepped = machine.prepared(self.quantized or network, optimizer)

    def train_epoch(self, agreement: Agreement) -> Iterator[Agreed]:
        """Runs the remaining steps of the current epoch and yields the result of each.

        Raises:
            DmaskError: for a loss that is not finite or explodes, before it reaches the weights.
        """
        state, settings = self.state, self.settings
        self.called.train()
        if self.quantized is not None:
            self.quantized.active = state.epoch >= settings.plain_epochs
        pieces = batches(
            self.data.train,
            self.data,
            settings.batch_size,
            settings.seed * 10_007 + state.epoch,
            state.step,
            augmentation=settings.augmentation,
            epoch=state.epoch,
            reading=self.reading,
        )
        while batch := list(itertools.islice(pieces, settings.accumulate)):
            number = state.epoch * self.steps + state.step
            self.schedule.step_update(number)
            self.stepped.zero_grad()
            with seeded((settings.seed * 10_007 + number) * self.machine.share.processes + self.machine.share.rank):
                agreed = agreement(*self._add_gradients(batch))
            check_loss(agreed.loss, self.data.classes, "train", state.epoch, state.step)
            self.machine.clip(self.called, settings.clip_norm)
            self.stepped.step()
            if state.averaged is not None:
                state.averaged.update(state.network, number + 1)
            state.loss, state.step = agreed.loss, state.step + 1
            yield agreed

    def _add_gradients(self, batch: list[Batch]) -> tuple[float, float, float]:
        """Adds a batch's gradients; returns this process's part of the loss, of the correct and of all images."""
        loss = correct = torch.zeros((), device=self.machine.device)
        for number, piece in enumerate(batch, start=1):
            with self.machine.without_exchange(self.called, number < len(batch)):
                scores_NK = self.called(piece.images)
                part = self._loss(scores_NK, piece) * piece.weight
                self.machine.backward(part)
            loss = loss + part.detach()
            labels_N = piece.labels if piece.labels.dim() == 1 else piece.labels.argmax(1)
            correct = correct + (scores_NK.detach().argmax(1) == labels_N).sum()
        return float(loss), float(correct), float(sum(len(piece.images) for piece in batch))

    def _loss(self, scores_NK: Tensor, piece: Batch) -> Tensor:
        """The sum of the losses of the images in ``piece``."""
        loss = F.cross_entropy(scores_NK, piece.labels, label_smoothing=self.settings.label_smoothing, reduction="sum")
        distillation = self.settings.distillation
        if self.teacher is not None and distillation is not None:
            taught = distillation_loss(scores_NK, self.teacher(piece.images), distillation.temperature)
            loss = (1 - distillation.share) * loss + distillation.share * taught
        if self.quantized is not None and self.quantized.active:
            loss = loss + SPREAD_WEIGHT * len(scores_NK) * self.quantized.spread
        return loss

    def finish_epoch(self) -> None:
        """Measures the accuracy and moves on to the next epoch."""
        state = self.state
        check_weights(state.network, "train", state.epoch)
        is_last = state.epoch + 1 == self.settings.epochs
        state.accuracies = {}
        if state.averaged is not None:
            self.machine.share_norms(state.averaged.module)
            state.accuracies["averaged"] = self._accuracy(state.averaged.module)
        self.machine.share_norms(state.network)
        if state.averaged is None or is_last:
            state.accuracies["plain"] = self._accuracy(state.network)
        state.epoch, state.step = state.epoch + 1, 0

    def _accuracy(self, network: nn.Module) -> float:
        with self.machine.full_precision(network):
            return evaluate(network, self.data.val, self.data, machine=self.machine)

    def keep_better(self) -> Trained:
        """Keeps the better weights in the network: plain or averaged, by the accuracy on the validation images."""
        state = self.state
        plain, averaged = state.accuracies["plain"], state.accuracies.get("averaged")
        if averaged is not None and averaged > plain:
            assert state.averaged is not None
            state.network.load_state_dict(state.averaged.module.state_dict())
        return Trained(plain if averaged is None else max(plain, averaged), plain, averaged)


def train_child(
    network: nn.Module,
    data: ImageData,
    settings: TrainSettings,
    checkpoint: Path,
    progress: Progress = silent,
    *,
    child_digest: str = "",
    machine: Machine | None = None,
    teacher: Teacher | None = None,
    restart: bool = False,
    previous: bool = False,
) -> Trained:
    """Trains ``network`` in place on all training images; returns its top-1 accuracy on the validation images.

    The training resumes from ``checkpoint`` if that exists, and writes it after every epoch, every ten minutes, and on
    SIGTERM or Ctrl-C. ``epochs`` may be larger than in the checkpoint; the schedule continues as if this number had
    been set from the beginning.

    Args:
        network: the child; it receives the weights.
        data: the images.
        settings: the recipe, and the seed.
        checkpoint: the path of the checkpoint.
        progress: is called after each step and each epoch.
        child_digest: the digest of the child; a checkpoint of another child is refused.
        machine: device and processes; the default is one process on the best available device.
        teacher: the teacher, if the recipe has distillation.
        restart: remove the checkpoints after everything else has been checked.
        previous: resume from the checkpoint before the last.

    Raises:
        DmaskError: for a loss that is not finite, or a checkpoint of other settings, other data or another child.
        StoppedError: after a signal; the current step is finished and saved first.
    """
    machine = machine or Machine()
    trainer = Trainer(network, data, settings, machine, teacher)
    state, epochs, steps = trainer.state, settings.epochs, trainer.steps
    identity = _identity(trainer, child_digest)
    if restart and machine.is_main:
        remove_checkpoints(checkpoint)
    machine.wait()
    go_on(checkpoint, lambda content: _restore(checkpoint, content, identity, state, steps), machine, previous)
    machine.check_same(
        content_digest([identity, state.epoch, state.step, dict(network.named_parameters())]).encode(), "beginnings"
    )
    if state.epoch or state.step:
        progress("train", state.epoch, epochs, "goes on")

    def keep() -> None:
        content = {"settings": identity, **state.to_dict()}
        if machine.is_main:
            save_checkpoint(checkpoint, content)
        agreement.kept()

    with stop_signals() as stopped_by, stochastic_depth(network, settings.drop_path):
        agreement = Agreement(machine, stopped_by)
        while state.epoch < epochs:
            for agreed in trainer.train_epoch(agreement):
                if agreed.signal is not None or agreed.keep:
                    check_weights(network, "train", state.epoch)
                    keep()
                if agreed.signal is not None:
                    raise StoppedError(agreed.signal, "training")
                if state.step < steps:
                    progress("epoch", state.step, steps, f"loss {agreed.loss:.3f}")
            trainer.finish_epoch()
            keep()
            accuracy = state.accuracies.get("averaged", state.accuracies.get("plain", 0.0))
            progress("train", state.epoch, epochs, f"loss {state.loss:.3f}, accuracy {accuracy:.1%}")
    return trainer.keep_better()


def _identity(trainer: Trainer, child_digest: str) -> dict[str, Any]:
    """What must be equal in two trainings so that one can resume from the other's checkpoint."""
    return {
        **trainer.settings.model_dump(mode="json"),
        "mixed_precision": trainer.machine.mixed_precision,
        "data": trainer.data.digest,
        **normalization_of(trainer.data),
        "child": child_digest,
        "teacher": None if trainer.teacher is None else trainer.teacher.digest,
    }


def _restore(path: Path, content: dict[str, Any], identity: dict[str, Any], state: TrainState, steps: int) -> None:
    """Restores a training from the content of a checkpoint.

    Raises:
        DmaskError: for a checkpoint of other settings or another child, or a damaged checkpoint.
    """
    found = content.pop("settings", None)
    if isinstance(found, dict) and type(found.get("epochs")) is int and found["epochs"] <= identity["epochs"]:
        found = {**found, "epochs": identity["epochs"]}
    if difference := first_difference(found, identity):
        raise DmaskError(
            f"'{path}' belongs to a training with other settings: {difference}",
            "use the same settings and data (--epochs may grow), or start again with --restart",
        )
    try:
        state.restore(content, identity["epochs"], steps)
    except ValueError as error:
        raise DmaskError(
            f"checkpoint '{path}' does not fit its training: {error}",
            "restore the file, or start again with --restart",
        ) from error
