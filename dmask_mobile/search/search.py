"""The search loop: weight steps on 80% of the training images, gate steps on the other 20%."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.costs.effective_shapes import EffectiveShapes
from dmask_mobile.costs.model import ExpectedCost, SpaceCost
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget, check_budgets
from dmask_mobile.search.log import SearchLog
from dmask_mobile.search.losses import BudgetLoss, FbnetLoss, GateLoss, LinearLoss
from dmask_mobile.search.sampled_resolution import SampledResolution
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.gates import GateLogits, Gates
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import load_checkpoint, save_checkpoint
from dmask_mobile.training.data import ImageData, split_for_search
from dmask_mobile.training.train import batches, check_loss, num_batches

COLLAPSED = 0.9  # every skip gate at least so sure to skip

Stopped = Callable[[], int | None]


class StepRecord(NamedTuple):
    """Cross-entropy and top-1 accuracy of one step's batch."""

    loss: float
    accuracy: float


class SearchResult(NamedTuple):
    """What a search leaves: shared weights, decided logits, expected costs, mean normalized entropy.

    ``warnings`` say what went wrong without stopping the search.
    """

    supernet: MaskedSupernet
    logits: GateLogits
    expected: tuple[float, ...]
    entropy: float
    warnings: tuple[str, ...]


class Searcher:
    """One search over ``space`` on ``data`` under ``budgets``.

    ``run`` goes on from ``checkpoint`` where that exists and writes it after every epoch and on SIGTERM or Ctrl-C.

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
        self.costs = [_as_gates_see_it(budget.cost, settings) for budget in self.budgets]
        self.loss = _loss(self.costs, [budget.limit for budget in self.budgets], settings)
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
        self.sampled = settings.resolution_mode == "sampled" and len(space.input.resolutions) > 1
        self.resolution = SampledResolution()
        self.epoch = 0
        self.weight_steps: list[StepRecord] = []  # of the epoch under way
        self.gate_steps: list[StepRecord] = []
        self.history: list[dict[str, Any]] = []

    def run(self, checkpoint: Path, progress: Progress = silent) -> SearchResult:
        """Searches to the end; ``metrics.jsonl`` and ``tensorboard/`` lie beside the checkpoint.

        Raises:
            DmaskError: for a loss that is not finite or explodes, and for a checkpoint of other settings.
            StoppedError: after SIGTERM or Ctrl-C, with the step under way finished and kept.
        """
        if checkpoint.exists():
            self._restore(load_checkpoint(checkpoint), checkpoint)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        epochs = self.settings.epochs
        with SearchLog(checkpoint.parent, self.epoch) as log, stop_signals() as stopped_by:
            while self.epoch < epochs:
                self._train_epoch(stopped_by)
                if signal_number := stopped_by():
                    save_checkpoint(checkpoint, self._state())
                    raise StoppedError(signal_number, "search")
                self._finish_epoch()
                save_checkpoint(checkpoint, self._state())
                log.write(self.history)
                progress("search", self.epoch, epochs, self._describe())
        return SearchResult(self.supernet, self.logits, self._expected(), self._entropy(), self._warnings())

    @property
    def _warmup_epochs(self) -> int:
        return round(self.settings.warmup * self.settings.epochs)

    @property
    def _gate_epoch(self) -> int:
        """Epochs that the gates have learned in; negative during the warm-up."""
        return self.epoch - self._warmup_epochs

    @property
    def _num_gate_epochs(self) -> int:
        return self.settings.epochs - self._warmup_epochs

    @property
    def _temperature(self) -> float:
        return self.settings.schedule.temperature(max(0, self._gate_epoch) / max(1, self._num_gate_epochs - 1))

    def _train_epoch(self, stopped_by: Stopped) -> None:
        """The rest of the epoch under way, or of it what is done when a signal comes."""
        self.supernet.train()
        for steps in (self._train_weights(), self._train_gates() if self._gate_epoch >= 0 else ()):
            for _ in steps:
                if stopped_by():
                    return

    def _finish_epoch(self) -> None:
        self.history.append(self._measure())
        self.weight_steps, self.gate_steps = [], []
        self.epoch += 1

    def _train_weights(self) -> Iterator[StepRecord]:
        """The weight steps that are left of this epoch, as they are made."""
        settings = self.settings
        rate = 0.5 * (1 + math.cos(math.pi * self.epoch / settings.epochs))
        for group in self.weight_optimizer.param_groups:
            group["lr"] = settings.weight_learning_rate * max(rate, 0.01)
        start = len(self.weight_steps)
        for images, labels in batches(self.for_weights, self.data, settings.batch_size, self._seed(0), start):
            with torch.no_grad():
                gates, _ = self._draw_gates()
            scores = self.supernet(images, gates)
            loss = F.cross_entropy(scores, labels)
            step = self._record(scores, labels, loss, "weights", len(self.weight_steps))
            self.weight_optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.weight_optimizer.step()
            self.weight_steps.append(step)
            yield step

    def _train_gates(self) -> Iterator[StepRecord]:
        """The gate steps that are left of this epoch, as they are made."""
        settings = self.settings
        steps_a_pass = num_batches(self.for_gates, settings.batch_size)
        passes = -(-settings.min_gate_steps // (self._num_gate_epochs * steps_a_pass))
        done, start = divmod(len(self.gate_steps), steps_a_pass)
        loaded = itertools.chain.from_iterable(
            batches(self.for_gates, self.data, settings.batch_size, self._seed(1 + p), start if p == done else 0)
            for p in range(done, passes)
        )
        for images, labels in loaded:
            fraction = (len(self.gate_steps) + 1) / (passes * steps_a_pass)
            target_entropy = settings.schedule.entropy((self._gate_epoch + fraction) / self._num_gate_epochs)
            gates, drawn = self._draw_gates()
            scores = self.supernet(images, gates)
            cross_entropy = F.cross_entropy(scores, labels)
            step = self._record(scores, labels, cross_entropy, "gates", len(self.gate_steps))
            if drawn is not None:
                cross_entropy = self.resolution.with_score(cross_entropy, self.logits, drawn)
            loss = self.loss(cross_entropy, self.logits, target_entropy)
            (self.logits.logits.grad,) = torch.autograd.grad(loss, [self.logits.logits])
            if not bool(self.logits.logits.grad.isfinite().all()):
                raise DmaskError(
                    f"search (gates): a gradient is not finite at epoch {self.epoch}, step {len(self.gate_steps)};"
                    " the last good epoch is kept",
                    "raise the schedule's last temperature or lower the gates' learning rate",
                )
            self.gate_optimizer.step()
            self.gate_steps.append(step)
            yield step

    def _draw_gates(self) -> tuple[Gates, int | None]:
        """Gates for one step, and the resolution that was drawn, if one was."""
        gates = self.logits.sample(self._temperature, self.noise)
        return self.resolution.draw(gates, self.logits, self.noise) if self.sampled else (gates, None)

    def _record(self, scores: Tensor, labels: Tensor, cross_entropy: Tensor, part: str, step: int) -> StepRecord:
        value = check_loss(cross_entropy, self.data.classes, f"search ({part})", self.epoch, step)
        return StepRecord(value, float((scores.detach().argmax(1) == labels).float().mean()))

    def _seed(self, part: int) -> int:
        return (self.settings.seed * 10_007 + self.epoch) * 101 + part

    def _measure(self) -> dict[str, Any]:
        """One line of ``metrics.jsonl``."""
        with torch.no_grad():
            probabilities, entropies = self.logits.probabilities(), self.logits.normalized_entropies()
        decisions = self.supernet.space.decisions
        undecided = [decision.name for decision in decisions if len(decision.options) > 1]
        return {
            "epoch": self.epoch,
            "temperature": self._temperature,
            "weights": _means(self.weight_steps),
            "gates": _means(self.gate_steps),
            "expected": dict(zip((b.cost.name for b in self.budgets), self._expected(), strict=True)),
            "budgets": {b.cost.name: b.limit for b in self.budgets},
            "control": self.loss.state(),
            "entropy": self._entropy(),
            "entropies": dict(zip(undecided, entropies.tolist(), strict=False)),
            "probabilities": {d.name: gate.tolist() for d, gate in zip(decisions, probabilities, strict=True)},
            "warnings": list(self._warnings()),
        }

    def _warnings(self) -> tuple[str, ...]:
        """What the gates have run into."""
        space = self.supernet.space
        with torch.no_grad():
            skips = [
                p[1] for d, p in zip(space.decisions, self.logits.probabilities(), strict=True) if d.kind == "skip"
            ]
        if skips and min(skips) >= COLLAPSED:
            return (
                f"all {len(skips)} blocks that may be skipped are: unless the budget is that tight, lengthen the"
                " warm-up or lower the gates' learning rate",
            )
        return ()

    def _expected(self) -> tuple[float, ...]:
        with torch.no_grad():
            probabilities = self.logits.probabilities()
            return tuple(float(cost.expected(probabilities)) for cost in self.costs)

    def _entropy(self) -> float:
        with torch.no_grad():
            return float(self.logits.normalized_entropies().mean())

    def _describe(self) -> str:
        ratios = [value / budget.limit for value, budget in zip(self._expected(), self.budgets, strict=True)]
        warning = "".join(f"; warning: {text}" for text in self._warnings())
        return f"expected/budget {', '.join(f'{r:.3f}' for r in ratios)}, entropy {self._entropy():.2f}{warning}"

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self._identity(),
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
        }

    def _identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.digest(),
            "data": self.data.name,
            "budgets": [[budget.cost.name, budget.cost.digest(), budget.limit] for budget in self.budgets],
            "settings": self.settings.model_dump(),
        }

    def _restore(self, state: dict[str, Any], checkpoint: Path) -> None:
        if state["settings"] != self._identity():
            raise DmaskError(
                f"'{checkpoint}' belongs to a search with other settings",
                "use the same space, data, budget, table and settings, or start a new run folder",
            )
        self.epoch = state["epoch"]
        self.weight_steps, self.gate_steps = ([StepRecord(*step) for step in steps] for steps in state["steps"])
        self.resolution.baseline = state["baseline"]
        self.supernet.load_state_dict(state["supernet"])
        self.logits.load_state_dict(state["logits"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.gate_optimizer.load_state_dict(state["gate_optimizer"])
        self.loss.restore(state["loss"])
        self.noise.set_state(state["noise"])
        self.history = state["history"]


def _means(steps: Sequence[StepRecord]) -> dict[str, float]:
    """Mean loss and accuracy; nothing for no steps."""
    if not steps:
        return {}
    loss, accuracy = (sum(values) / len(steps) for values in zip(*steps, strict=True))
    return {"loss": loss, "accuracy": accuracy}


def _as_gates_see_it(cost: SpaceCost, settings: SearchSettings) -> ExpectedCost:
    """The exact expectation, or by the paper's effective shapes where those are defined and wanted."""
    if settings.expectation == "effective_shapes" and (cost.name == "macs" or cost.name == "params"):
        return EffectiveShapes(cost.space, "macs" if cost.name == "macs" else "params")
    return cost


def _loss(costs: Sequence[ExpectedCost], limits: Sequence[float], settings: SearchSettings) -> GateLoss:
    match settings.loss:
        case "budget":
            return BudgetLoss(costs, limits, settings.control)
        case "fbnet":
            return FbnetLoss(costs, settings.fixed)
        case "linear":
            return LinearLoss(costs, limits, settings.fixed)
