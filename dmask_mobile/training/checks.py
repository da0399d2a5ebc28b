"""Checks that stop a training before its weights are damaged, and the exchange between processes after each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import SIGNALS
from dmask_mobile.training.machine import Machine

EXPLODED = 100  # times the loss of random guessing
SECONDS_BETWEEN_CHECKPOINTS = 600.0
_CALMER = (
    "lower the learning rate (--learning-rate; dmask search: --weight-learning-rate) and start again with --restart"
)


class Agreed(NamedTuple):
    """The result of one step over all processes: mean loss and top-1 accuracy of its batch, and the signal, if any.

    ``keep``: whether a checkpoint is due in the middle of the epoch.
    """

    loss: float
    accuracy: float
    signal: int | None
    keep: bool


class Agreement:
    """Gives all processes the same result of each step, in one exchange, so that none stops while the others wait.

    Args:
        machine: the processes.
        stopped_by: the signal that this process received, if any.
        seconds: the time between two checkpoints in the middle of an epoch.
    """

    def __init__(
        self, machine: Machine, stopped_by: Callable[[], int | None], seconds: float = SECONDS_BETWEEN_CHECKPOINTS
    ) -> None:
        self.machine = machine
        self.stopped_by = stopped_by
        self.seconds = seconds
        self._kept = time.monotonic()

    def kept(self) -> None:
        """Is called after a checkpoint was written."""
        self._kept = time.monotonic()

    def __call__(self, loss: float, correct: float, count: float) -> Agreed:
        """The result of a step over all processes.

        Args:
            loss: this process's part of the batch's mean loss, times the number of processes.
            correct: the number of correctly classified images in its part.
            count: the number of images in its part.
        """
        stopped_by = self.stopped_by()
        due = self.machine.is_main and time.monotonic() - self._kept > self.seconds
        signals = [float(stopped_by == number) for number in SIGNALS]
        own = [loss / self.machine.share.processes, correct, float(count), float(due), *signals]
        total = self.machine.total(torch.tensor(own, dtype=torch.float64)).tolist()
        signal = next((int(number) for number, sent in zip(SIGNALS, total[4:], strict=True) if sent), None)
        return Agreed(total[0], total[1] / total[2], signal, bool(total[3]))


def check_loss(loss: float, classes: int, stage: str, epoch: int, step: int) -> None:
    """Raises an error before a broken loss reaches the weights.

    Raises:
        DmaskError: if the loss is NaN, infinite or over 100 times the loss of random guessing, ``log(classes)``.
    """
    most = EXPLODED * math.log(classes)
    if not loss <= most:  # also true for NaN
        raise DmaskError(
            f"{stage}: the loss is {loss:g} at epoch {epoch}, step {step} (at most {most:.0f} is plausible);"
            " the last good checkpoint is kept",
            _CALMER,
        )


def check_weights(network: nn.Module, stage: str, epoch: int) -> None:
    """Raises an error before weights that are not finite reach a checkpoint; the last step can make them so.

    Raises:
        DmaskError: naming the first tensor.
    """
    for name, value in network.state_dict().items():
        if not bool(value.isfinite().all()):
            raise DmaskError(
                f"{stage}: '{name}' is not finite at the end of epoch {epoch}; the last good checkpoint is kept",
                _CALMER,
            )
