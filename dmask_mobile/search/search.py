"""The search loop: weight steps on 80% of the training images, gate steps on the other 20%."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record, write_atomically
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.derive import Derived, derive
from dmask_mobile.search.derive_several import derive_within_all
from dmask_mobile.search.losses import (
    BudgetLoss,
    ControlSettings,
    FbnetLoss,
    FixedSettings,
    GateLoss,
    LinearLoss,
    LossName,
)
from dmask_mobile.search.schedule import Schedule
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import load_checkpoint, save_checkpoint
from dmask_mobile.training.data import ImageData, ImageSet, split_for_search
from dmask_mobile.training.train import batches, check_finite


class SearchSettings(Record):
    """Length and rates of a search; the schedules stretch with ``epochs``."""

    epochs: PositiveInt = 90
    warmup: float = Field(default=0.11, ge=0, lt=1, description="share of the epochs before the gates learn")
    gate_share: float = Field(default=0.2, gt=0, lt=1, description="share of the images that the gates learn from")
    batch_size: PositiveInt = 128
    weight_learning_rate: PositiveFloat = 0.1
    weight_decay: float = 4e-5
    gate_learning_rate: PositiveFloat = 0.05
    min_gate_steps: PositiveInt = Field(default=400, description="at least so many gate steps in the whole search")
    schedule: Schedule = Schedule()
    loss: LossName = "budget"
    control: ControlSettings = ControlSettings()
    fixed: FixedSettings = FixedSettings()
    seed: int = 0


class Budget(NamedTuple):
    """A cost of every child and the most of it that the child may have."""

    cost: ChainCost
    limit: float


class SearchResult(NamedTuple):
    """What a search leaves: shared weights, decided logits, expected costs, mean normalized entropy."""

    supernet: MaskedSupernet
    logits: GateLogits
    expected: tuple[float, ...]
    entropy: float


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Refuses what no child can meet, and what every child meets.

    Raises:
        DmaskError: naming the budget and the reachable range.
    """
    for cost, limit in budgets:
        low, high = cost.reachable()
        if not low <= limit <= high:
            where = "below" if limit < low else "above"
            raise DmaskError(
                f"budget {cost.name}={limit:g} {cost.unit} is {where} what '{cost.space.name}' can reach:"
                f" {low:.4g} to {high:.4g} {cost.unit}",
                "choose a budget in that range or another space",
            )


class Searcher:
    """One search over ``space`` on ``data`` under ``budgets``.

    ``run`` goes on from ``checkpoint`` where that exists and writes it after every epoch.

    Raises:
        DmaskError: for a budget out of reach, before anything is trained.
    """

    def __init__(
        self, space: SearchSpace, data: ImageData, budgets: Sequence[Budget], settings: SearchSettings
    ) -> None:
        check_budgets(budgets)
        self.data = data
        self.settings = settings
        generator = torch.Generator().manual_seed(settings.seed)
        self.supernet = MaskedSupernet(space, generator)
        self.supernet.to(memory_format=torch.channels_last)
        self.logits = GateLogits(space)
        self.noise = torch.Generator().manual_seed(settings.seed + 1)
        self.budgets = tuple(budgets)
        self.loss = _loss(self.budgets, settings)
        self.for_weights, self.for_gates = split_for_search(data.train, settings.gate_share, generator)
        self.weight_optimizer = torch.optim.SGD(
            self.supernet.parameters(),
            lr=settings.weight_learning_rate,
            momentum=0.9,
            weight_decay=settings.weight_decay,
            nesterov=True,
        )
        self.gate_optimizer = torch.optim.Adam(
            self.logits.parameters(), lr=settings.gate_learning_rate, betas=(0.5, 0.999)
        )
        self.epoch = 0
        self.history: list[dict[str, Any]] = []

    def run(self, checkpoint: Path, progress: Progress = silent) -> SearchResult:
        """Searches to the end; ``metrics.jsonl`` beside the checkpoint gets one line an epoch.

        Raises:
            DmaskError: for a loss that is not finite, and for a checkpoint of other settings.
        """
        if checkpoint.exists():
            self._restore(load_checkpoint(checkpoint), checkpoint)
        epochs = self.settings.epochs
        while self.epoch < epochs:
            self._train_epoch()
            self.epoch += 1
            save_checkpoint(checkpoint, self._state())
            lines = "".join(json.dumps(line) + "\n" for line in self.history)
            write_atomically(checkpoint.with_name("metrics.jsonl"), lines)
            progress("search", self.epoch, epochs, self._describe())
        return SearchResult(self.supernet, self.logits, self._expected(), self._entropy())

    def _train_epoch(self) -> None:
        settings = self.settings
        warmup_epochs = round(settings.warmup * settings.epochs)
        gate_epochs = settings.epochs - warmup_epochs
        gate_epoch = max(0, self.epoch - warmup_epochs)
        temperature = settings.schedule.temperature(gate_epoch / max(1, gate_epochs - 1))
        self.supernet.train()
        weight_loss = self._train_weights(temperature)
        gate_loss = None
        if self.epoch >= warmup_epochs:
            gate_loss = self._train_gates(temperature, gate_epoch, gate_epochs)
        self.history.append(self._measure(temperature, weight_loss, gate_loss))

    def _train_weights(self, temperature: float) -> float:
        """One epoch of weight steps; returns their mean loss."""
        settings = self.settings
        rate = 0.5 * (1 + math.cos(math.pi * self.epoch / settings.epochs))
        for group in self.weight_optimizer.param_groups:
            group["lr"] = settings.weight_learning_rate * max(rate, 0.01)
        losses = []
        for step, (images, labels) in enumerate(self._batches(self.for_weights, 0)):
            with torch.no_grad():
                gates = self.logits.sample(temperature, self.noise)
            loss = F.cross_entropy(self.supernet(images, gates), labels)
            losses.append(check_finite(loss, "search (weights)", self.epoch, step))
            self.weight_optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.weight_optimizer.step()
        return sum(losses) / len(losses)

    def _train_gates(self, temperature: float, gate_epoch: int, gate_epochs: int) -> float:
        """One epoch of gate steps; returns their mean cross-entropy."""
        settings = self.settings
        num_batches = max(1, len(self.for_gates.labels) // settings.batch_size)
        passes = -(-settings.min_gate_steps // (gate_epochs * num_batches))
        total = passes * num_batches
        loaded = itertools.chain.from_iterable(self._batches(self.for_gates, 1 + number) for number in range(passes))
        losses = []
        for step, (images, labels) in enumerate(loaded):
            target_entropy = settings.schedule.entropy((gate_epoch + (step + 1) / total) / gate_epochs)
            cross_entropy = F.cross_entropy(self.supernet(images, self.logits.sample(temperature, self.noise)), labels)
            loss = self.loss(cross_entropy, self.logits, target_entropy)
            check_finite(loss, "search (gates)", self.epoch, step)
            losses.append(float(cross_entropy.detach()))
            (self.logits.logits.grad,) = torch.autograd.grad(loss, [self.logits.logits])
            self.gate_optimizer.step()
        return sum(losses) / len(losses)

    def _measure(self, temperature: float, weight_loss: float, gate_loss: float | None) -> dict[str, Any]:
        """One line of ``metrics.jsonl``."""
        with torch.no_grad():
            probabilities, entropies = self.logits.probabilities(), self.logits.normalized_entropies()
        decisions = self.supernet.space.decisions
        undecided = [decision.name for decision in decisions if len(decision.options) > 1]
        return {
            "epoch": self.epoch,
            "temperature": temperature,
            "weight_loss": weight_loss,
            "gate_loss": gate_loss,
            "expected": dict(zip((b.cost.name for b in self.budgets), self._expected(), strict=True)),
            "budgets": {b.cost.name: b.limit for b in self.budgets},
            "loss": self.loss.state(),
            "entropy": self._entropy(),
            "entropies": dict(zip(undecided, entropies.tolist(), strict=False)),
            "probabilities": {d.name: gate.tolist() for d, gate in zip(decisions, probabilities, strict=True)},
        }

    def _batches(self, images: ImageSet, part: int) -> Any:
        seed = (self.settings.seed * 10_007 + self.epoch) * 101 + part
        return batches(images, self.data, self.settings.batch_size, seed)

    def _expected(self) -> tuple[float, ...]:
        with torch.no_grad():
            probabilities = self.logits.probabilities()
            return tuple(float(budget.cost.expected(probabilities)) for budget in self.budgets)

    def _entropy(self) -> float:
        with torch.no_grad():
            return float(self.logits.normalized_entropies().mean())

    def _describe(self) -> str:
        ratios = [value / budget.limit for value, budget in zip(self._expected(), self.budgets, strict=True)]
        return f"expected/budget {', '.join(f'{r:.3f}' for r in ratios)}, entropy {self._entropy():.2f}"

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self._identity(),
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "logits": self.logits.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "gate_optimizer": self.gate_optimizer.state_dict(),
            "loss": self.loss.state(),
            "noise": self.noise.get_state(),
            "history": self.history,
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.digest(),
            "data": self.data.name,
            "budgets": [[budget.cost.name, budget.limit] for budget in self.budgets],
            "settings": self.settings.model_dump(),
        }

    def _restore(self, state: dict[str, Any], checkpoint: Path) -> None:
        if state["settings"] != self._identity():
            raise DmaskError(
                f"'{checkpoint}' belongs to a search with other settings",
                "use the same space, data, budget and settings, or start a new run folder",
            )
        self.epoch = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        self.logits.load_state_dict(state["logits"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.gate_optimizer.load_state_dict(state["gate_optimizer"])
        self.loss.restore(state["loss"])
        self.noise.set_state(state["noise"])
        self.history = state["history"]


def derive_within(budgets: Sequence[Budget], probabilities: Sequence[np.ndarray]) -> Derived:
    """The best child within every budget: exact for one, with a stated gap for several.

    Raises:
        DmaskError: when no child was found.
    """
    if len(budgets) == 1:
        return derive(budgets[0].cost, probabilities, budgets[0].limit)
    return derive_within_all([b.cost for b in budgets], [b.limit for b in budgets], probabilities)


def _loss(budgets: Sequence[Budget], settings: SearchSettings) -> GateLoss:
    costs, limits = [b.cost for b in budgets], [b.limit for b in budgets]
    match settings.loss:
        case "budget":
            return BudgetLoss(costs, limits, settings.control)
        case "fbnet":
            return FbnetLoss(costs, settings.fixed)
        case "linear":
            return LinearLoss(costs, limits, settings.fixed)
