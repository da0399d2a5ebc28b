"""`TrainState`: everything in a training that changes from step to step, and the part that a checkpoint stores."""

from __future__ import annotations

from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from dmask_mobile.training.machine import Machine
from dmask_mobile.training.restoring import (
    finite_number,
    require_keys,
    restore_module,
    restore_optimizer,
    restore_rows,
    whole_number,
)

KEYS = frozenset(
    ("epoch", "step", "loss", "accuracies", "network", "averaged", "optimizer", "scaler", "norms")
)  # of a checkpoint


class TrainState:
    """The state of a child's training: the network, its optimizer, its moving average, and the position.

    ``accuracies``: the accuracies of the plain and of the averaged weights on the validation images, if they were
    measured at the end of the last epoch.
    """

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, averaged: ModelEmaV3 | None, machine: Machine
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.averaged = averaged
        self.machine = machine
        self.epoch = self.step = 0
        self.loss = 0.0
        self.accuracies: dict[str, float] = {}

    def to_dict(self) -> dict[str, Any]:
        """The content of a checkpoint; every process must call this."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "loss": self.loss,
            "accuracies": self.accuracies,
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.machine.scaler_state(),
            "norms": rows_of_norms(self._modules, self.machine) if self.step else None,
        }

    def restore(self, content: dict[str, Any], epochs: int, steps: int) -> None:
        """Restores the result of `to_dict` from a training of ``epochs`` with ``steps`` each.

        Raises:
            ValueError: for content that does not fit this training.
        """
        state = require_keys(content, KEYS, "it")
        self.epoch = whole_number(state["epoch"], epochs, "epoch")
        self.step = whole_number(state["step"], steps if self.epoch < epochs else 0, "step")
        self.loss = finite_number(state["loss"], "loss")
        self.accuracies = _accuracies(state["accuracies"])
        needed = {"plain"} if self.averaged is None else {"plain", "averaged"}
        if self.epoch == epochs and not needed <= set(self.accuracies):
            raise ValueError("a finished training must have an accuracy for each of its sets of weights")
        restore_module(self.network, state["network"], "network")
        restore_optimizer(self.optimizer, state["optimizer"], "optimizer")
        self.machine.restore_scaler(state["scaler"])
        if self.averaged is not None:
            restore_module(self.averaged.module, state["averaged"], "averaged")
        if state["norms"] is not None:
            restore_rows(norms_of(self._modules), state["norms"], self.machine.share, "norms")

    @property
    def _modules(self) -> list[nn.Module]:
        return [self.network] if self.averaged is None else [self.network, self.averaged.module]


def norms_of(modules: list[nn.Module]) -> list[Tensor]:
    """The running statistics of batch norms, which differ between processes in the middle of an epoch."""
    return [
        buffer
        for module in modules
        for name, buffer in module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]


def rows_of_norms(modules: list[nn.Module], machine: Machine) -> Tensor | None:
    """The running statistics of every process, (processes, n); None if there is only one process."""
    buffers = norms_of(modules)
    if machine.share.processes == 1 or not buffers:
        return None
    return machine.rows(torch.cat([buffer.flatten() for buffer in buffers]))


def _accuracies(found: object) -> dict[str, float]:
    if not isinstance(found, dict) or not set(found) <= {"plain", "averaged"}:
        raise ValueError("accuracies must belong to the plain and the averaged weights")
    accuracies = {name: finite_number(value, f"accuracy of the {name} weights") for name, value in found.items()}
    for name, value in accuracies.items():
        if not 0 <= value <= 1:
            raise ValueError(f"accuracy of the {name} weights must lie in 0..1, got {value}")
    return accuracies
