"""`SearchState`: everything in a search that changes from step to step, and the part that a checkpoint stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from dmask_mobile.errors import shown
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.loss_model import Evaluation, Trial
from dmask_mobile.search.losses import GateLoss
from dmask_mobile.search.sampled_resolution import SampledResolution
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import content_digest
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.restoring import (
    finite_number,
    require_keys,
    restore_generator,
    restore_module,
    restore_optimizer,
    restore_rows,
    whole_number,
)
from dmask_mobile.training.state import norms_of, rows_of_norms


class StepRecord(NamedTuple):
    """Cross-entropy and top-1 accuracy of one step's batch."""

    loss: float
    accuracy: float


class Position(NamedTuple):
    """The number of finished epochs, and the finished steps of the current epoch."""

    epochs: int
    weight_steps: int
    gate_steps: int


MAX_GROUP = 2**53  # of evaluations
KEYS = frozenset(
    (
        "epoch",
        "steps",
        "baseline",
        "supernet",
        "logits",
        "weight_optimizer",
        "gate_optimizer",
        "loss",
        "noise",
        "history",
        "scaler",
        "norms",
        "evaluations",
        "trials",
    )
)  # of a checkpoint


@dataclass
class SearchState:
    """Weights, logits, their optimizers, the random state and the position of a search.

    ``weight_steps`` and ``gate_steps`` are those of the current epoch. ``history`` contains one entry for each finished
    epoch (a line of ``metrics.jsonl``). ``evaluations`` and ``trials``: the losses of drawn children (method
    ``single_path``).
    """

    supernet: MaskedSupernet
    logits: GateLogits
    weight_optimizer: torch.optim.Optimizer
    gate_optimizer: torch.optim.Optimizer
    noise: torch.Generator
    loss: GateLoss
    machine: Machine
    resolution: SampledResolution = field(default_factory=SampledResolution)
    epoch: int = 0
    weight_steps: list[StepRecord] = field(default_factory=list)
    gate_steps: list[StepRecord] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The content of a checkpoint: tensors, numbers, strings, lists and dicts. Every process must call this."""
        return {
            "epoch": self.epoch,
            "steps": [[list(step) for step in steps] for steps in (self.weight_steps, self.gate_steps)],
            "baseline": self.resolution.baseline,
            "supernet": self.supernet.state_dict(),
            "logits": self.logits.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "gate_optimizer": self.gate_optimizer.state_dict(),
            "loss": self.loss.state(),
            "noise": self.noise.get_state(),
            "history": self.history,
            "scaler": self.machine.scaler_state(),
            "evaluations": [[e.group, e.loss, *e.choice.indices] for e in self.evaluations],
            "trials": [[t.loss, t.accuracy, *t.choice.indices] for t in self.trials],
            "norms": rows_of_norms([self.supernet], self.machine) if self.weight_steps else None,
        }

    @property
    def position(self) -> Position:
        """The current position of the search."""
        return Position(self.epoch, len(self.weight_steps), len(self.gate_steps))

    def shared_content(self) -> bytes:
        """What must be the same in all processes: logits, their optimizer's position, controllers, random state."""
        parts = [
            self.logits.state_dict(),
            self.gate_optimizer.state_dict(),
            self.loss.state(),
            self.noise.get_state(),
            self.resolution.baseline,
        ]
        return content_digest(parts).encode()

    def restore(self, content: dict[str, Any], last: Position) -> None:
        """Restores the state from the result of `to_dict`.

        Args:
            content: that result, read from a file that may be untrusted.
            last: the number of epochs of the search, and the number of steps in each.

        Raises:
            ValueError: for content that does not fit this search.
        """
        state = require_keys(content, KEYS, "it")
        epoch = whole_number(state["epoch"], last.epochs, "epoch")
        weight_steps, gate_steps = _steps(state["steps"], last, ended=epoch == last.epochs)
        history = _history(state["history"], epoch)
        space = self.supernet.space
        evaluations = [_evaluation(row, choice) for row, choice in _rows(state["evaluations"], "evaluation", space)]
        trials = [_trial(row, choice) for row, choice in _rows(state["trials"], "trial", space)]
        baseline = None if state["baseline"] is None else finite_number(state["baseline"], "baseline")
        restore_module(self.supernet, state["supernet"], "supernet")
        restore_module(self.logits, state["logits"], "logits")
        restore_optimizer(self.weight_optimizer, state["weight_optimizer"], "weight_optimizer")
        restore_optimizer(self.gate_optimizer, state["gate_optimizer"], "gate_optimizer")
        restore_generator(self.noise, state["noise"], "noise")
        self.loss.restore(state["loss"])
        self.machine.restore_scaler(state["scaler"])
        if state["norms"] is not None:
            restore_rows(norms_of([self.supernet]), state["norms"], self.machine.share, "norms")
        self.resolution.baseline = baseline
        self.epoch, self.weight_steps, self.gate_steps, self.history = epoch, weight_steps, gate_steps, history
        self.evaluations, self.trials = evaluations, trials


def new_state(supernet: MaskedSupernet, loss: GateLoss, settings: SearchSettings, machine: Machine) -> SearchState:
    """The state before the first step."""
    logits = GateLogits(supernet.space)
    return SearchState(
        supernet=supernet,
        logits=logits,
        weight_optimizer=torch.optim.SGD(
            supernet.parameters(),
            lr=settings.weight_learning_rate,
            momentum=0.9,
            weight_decay=settings.weight_decay,
            nesterov=True,
        ),
        gate_optimizer=torch.optim.Adam(logits.parameters(), lr=settings.gate_learning_rate, betas=(0.5, 0.999)),
        noise=torch.Generator().manual_seed(settings.seed + 1),
        loss=loss,
        machine=machine,
    )


def _steps(found: object, last: Position, ended: bool) -> tuple[list[StepRecord], list[StepRecord]]:
    """The weight steps and gate steps of the current epoch."""
    if not isinstance(found, list) or len(found) != 2:
        raise ValueError(f"steps must be two lists, got {shown(repr(found))}")
    parts = []
    for steps, most, what in zip(found, last[1:], ("weight steps", "gate steps"), strict=True):
        if not isinstance(steps, list) or len(steps) > (0 if ended else most):
            raise ValueError(f"{what} must be a list of at most {0 if ended else most} items")
        if not all(isinstance(step, list) and len(step) == len(StepRecord._fields) for step in steps):
            raise ValueError(f"each of the {what} must be a loss and an accuracy")
        parts.append([StepRecord(*(finite_number(value, what) for value in step)) for step in steps])
    if parts[1] and len(parts[0]) < last.weight_steps:
        raise ValueError(f"gate steps come after {last.weight_steps} weight steps, got {len(parts[0])}")
    return parts[0], parts[1]


def _rows(found: object, what: str, space: SearchSpace) -> Iterator[tuple[list[object], Choice]]:
    """Two values and the choice of each row of a list."""
    if not isinstance(found, list):
        raise ValueError(f"the {what}s must be a list, got {type(found).__name__}")
    sizes = [len(decision.options) for decision in space.decisions]
    for row in found:
        if not isinstance(row, list) or len(row) != 2 + len(sizes):
            raise ValueError(f"{what}: a row must be two numbers and {len(sizes)} options, got {shown(repr(row))}")
        options = tuple(whole_number(i, size - 1, "an option") for i, size in zip(row[2:], sizes, strict=True))
        yield row[:2], Choice(indices=options)


def _evaluation(row: list[object], choice: Choice) -> Evaluation:
    group, loss = row
    return Evaluation(
        whole_number(group, MAX_GROUP, "the group of an evaluation"),
        finite_number(loss, "the loss of an evaluation"),
        choice,
    )


def _trial(row: list[object], choice: Choice) -> Trial:
    loss, accuracy = row
    return Trial(finite_number(loss, "the loss of a trial"), finite_number(accuracy, "an accuracy"), choice)


def _history(found: object, epoch: int) -> list[dict[str, Any]]:
    """One entry for each finished epoch."""
    if not isinstance(found, list) or len(found) != epoch:
        raise ValueError(f"history must have one entry for each of {epoch} epochs")
    for number, line in enumerate(found):
        if not isinstance(line, dict) or line.get("epoch") != number:
            raise ValueError(f"history: entry {number} is not for epoch {number}")
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"history may contain only numbers and text: {error}") from error
    return found
