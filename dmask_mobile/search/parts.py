"""`SearchParts`: the parts of a search that all methods of training gates need."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.data.batches import Batch, Reading, batches, num_batches
from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.losses import GateLoss
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.state import SearchState
from dmask_mobile.supernet.gates import Gates
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checks import Agreed, Agreement, check_loss
from dmask_mobile.training.machine import Machine


class GateTraining(Protocol):
    """A method of training gates: `single_path` (the default), `soft_gates` (that of the paper) or `sensitivity`.

    ``num_steps``: the number of gate steps in an epoch.
    """

    num_steps: int

    def draw(self) -> Gates | Choice:
        """The gates or the child that the next weight step trains, on its device."""
        ...

    def steps(self) -> Iterator[Agreed]:
        """Runs the remaining gate steps of the current epoch and yields the result of each."""
        ...

    def finish_epoch(self) -> None:
        """Is called after all gate steps of an epoch."""
        ...

    def metrics(self) -> dict[str, Any]:
        """The part of a line of ``metrics.jsonl`` that is specific to this method."""
        ...


@dataclass
class SearchParts:
    """The supernet, its state, the images that gates learn from, and what all steps have in common."""

    supernet: MaskedSupernet
    state: SearchState
    settings: SearchSettings
    budgets: Sequence[Budget]
    loss: GateLoss
    data: ImageData
    for_weights: ImageSet
    for_gates: ImageSet
    machine: Machine
    reading: Reading
    agreement: Agreement = field(init=False)

    @property
    def num_weight_steps(self) -> int:
        """The number of weight steps in an epoch."""
        if self.settings.method == "sensitivity":
            return 0
        return num_batches(self.for_weights, self.settings.batch_size)

    @property
    def num_gate_epochs(self) -> int:
        """The number of epochs in which gates learn."""
        return self.settings.epochs - self.settings.warmup_epochs

    @property
    def gate_epoch(self) -> int:
        """The number of epochs in which the gates have learned so far; negative during the warm-up."""
        return self.state.epoch - self.settings.warmup_epochs

    def target_entropy(self, fraction: float) -> float:
        """The target of the gates' entropy after this fraction of the epoch's gate steps."""
        return self.settings.schedule.entropy((self.gate_epoch + fraction) / self.num_gate_epochs)

    def seed(self, part: int) -> int:
        """The seed of the order of images in this epoch; part 0 is for weights, parts from 1 on are for gates."""
        return (self.settings.seed * 10_007 + self.state.epoch) * 101 + part

    def batches(self, images: ImageSet, batch_size: int, seed: int, start: int) -> Iterator[Batch]:
        """This process's part of each batch of an epoch, beginning with batch number ``start``."""
        return batches(images, self.data, batch_size, seed, start, reading=self.reading)

    def moved(self, gates: Gates) -> Gates:
        """The gates on the device."""
        return self.machine.moved(gates)

    def gate_batches(self, batch_size: int, start: int) -> Iterator[Batch]:
        """Endless batches of the gates' images in this epoch, beginning with batch number ``start``."""
        first, position = divmod(start, num_batches(self.for_gates, batch_size))
        for number in itertools.count(first):
            yield from self.batches(self.for_gates, batch_size, self.seed(1 + number), position)
            position = 0

    def judge(self, gates: Gates | Choice, batch: Batch) -> tuple[Tensor, Agreed]:
        """This process's part of a gate step's cross-entropy, on the CPU, and the step's result over all processes."""
        with self.machine.autocast():
            scores = self.supernet(batch.images, gates).float()
        cross_entropy = F.cross_entropy(scores, batch.labels, reduction="sum").cpu() * batch.weight
        return cross_entropy, self.agree(scores, batch, cross_entropy, "gates", len(self.state.gate_steps))

    def agree(self, scores: Tensor, batch: Batch, loss: Tensor, part: str, step: int) -> Agreed:
        """The result of a step over all processes, after a check of its loss."""
        correct = (scores.detach().argmax(1) == batch.labels).sum()
        agreed = self.agreement(float(loss.detach()), float(correct), len(batch.labels))
        check_loss(agreed.loss, self.data.classes, f"search ({part})", self.state.epoch, step)
        return agreed


def check_gradient(gradient: Tensor, epoch: int, step: int) -> None:
    """Checks that the gates' gradient is finite.

    Raises:
        DmaskError: if it is not.
    """
    if not bool(gradient.isfinite().all()):
        raise DmaskError(
            f"search (gates): a gradient is not finite at epoch {epoch}, step {step}; the last good epoch is kept",
            "raise --last-temperature or lower --gate-learning-rate, and start again with --restart",
        )
