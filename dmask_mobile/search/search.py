"""The search loop: weight steps on 80% of the training images, gate steps on the other 20%."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.costs.effective_shapes import EffectiveShapes
from dmask_mobile.costs.model import ExpectedCost, SpaceCost
from dmask_mobile.data.batches import batches, num_batches
from dmask_mobile.data.images import ImageData, ImageSet, split_for_search
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search import checkpoint as checkpoints
from dmask_mobile.search.budgets import Budget, check_budgets, checked_budgets
from dmask_mobile.search.log import SearchLog
from dmask_mobile.search.losses import BudgetLoss, FbnetLoss, GateLoss, LinearLoss
from dmask_mobile.search.metrics import SearchMetrics, mean_entropy, warnings_about
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.state import Position, StepRecord, new_state
from dmask_mobile.supernet.gates import GateLogits, Gates
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.train import check_loss, check_weights

Stopped = Callable[[], int | None]


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
        self.budgets = checked_budgets(budgets)
        generator = torch.Generator().manual_seed(settings.seed)
        self.supernet = MaskedSupernet(space, generator)
        self.supernet.to(memory_format=torch.channels_last)
        self.for_weights, self.for_gates = split_for_search(data.train, settings.gate_share, generator)
        _check_split(self.for_weights, self.for_gates, settings.gate_share)
        costs = [_as_gates_see_it(budget.cost, settings) for budget in self.budgets]
        self.loss = gate_loss(costs, [budget.limit for budget in self.budgets], settings)
        self.metrics = SearchMetrics(self.budgets, costs)
        self.state = new_state(self.supernet, self.loss, settings)
        self.logits = self.state.logits
        self.sampled = settings.resolution_mode == "sampled" and len(space.input.resolutions) > 1

    def run(self, checkpoint: Path, progress: Progress = silent) -> SearchResult:
        """Searches to the end; ``metrics.jsonl`` and ``tensorboard/`` lie beside the checkpoint.

        Raises:
            DmaskError: for a loss that is not finite or explodes, and for a checkpoint of other settings.
            StoppedError: after SIGTERM or Ctrl-C, with the step under way finished and kept.
        """
        state, epochs = self.state, self.settings.epochs
        identity = checkpoints.identity_of(self.supernet.space, self.data, self.budgets, self.settings)
        if checkpoint.exists():
            checkpoints.restore(checkpoint, identity, state, self._last_position)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with SearchLog(checkpoint.parent, state.history) as log, stop_signals() as stopped_by:
            while state.epoch < epochs:
                self._train_epoch(stopped_by)
                check_weights(self.supernet, "search", state.epoch)
                if signal_number := stopped_by():
                    checkpoints.write(checkpoint, identity, state)
                    raise StoppedError(signal_number, "search")
                self._finish_epoch()
                checkpoints.write(checkpoint, identity, state)
                log.write(state.history)
                progress("search", state.epoch, epochs, self.metrics.note(state))
        expected, entropy = self.metrics.expected(self.logits), mean_entropy(self.logits)
        return SearchResult(self.supernet, self.logits, expected, entropy, warnings_about(state))

    @property
    def _gate_epoch(self) -> int:
        """Epochs that the gates have learned in; negative during the warm-up."""
        return self.state.epoch - self.settings.warmup_epochs

    @property
    def _num_gate_epochs(self) -> int:
        return self.settings.epochs - self.settings.warmup_epochs

    @property
    def _temperature(self) -> float:
        return self.settings.schedule.temperature(max(0, self._gate_epoch) / max(1, self._num_gate_epochs - 1))

    @property
    def _gate_passes(self) -> tuple[int, int]:
        """Gate steps of one pass over the gates' images, and the passes of an epoch."""
        steps = num_batches(self.for_gates, self.settings.batch_size)
        return steps, -(-self.settings.min_gate_steps // (self._num_gate_epochs * steps))

    @property
    def _last_position(self) -> Position:
        """The number of epochs, and of the steps in each."""
        steps, passes = self._gate_passes
        return Position(self.settings.epochs, num_batches(self.for_weights, self.settings.batch_size), steps * passes)

    def _train_epoch(self, stopped_by: Stopped) -> None:
        """The rest of the epoch under way, or of it what is done when a signal comes."""
        self.supernet.train()
        for steps in (self._train_weights(), self._train_gates() if self._gate_epoch >= 0 else ()):
            for _ in steps:
                if stopped_by():
                    return

    def _finish_epoch(self) -> None:
        state = self.state
        state.history.append(self.metrics.line(state, self._temperature))
        state.weight_steps, state.gate_steps = [], []
        state.epoch += 1

    def _train_weights(self) -> Iterator[StepRecord]:
        """The weight steps that are left of this epoch, as they are made."""
        settings = self.settings
        rate = 0.5 * (1 + math.cos(math.pi * self.state.epoch / settings.epochs))
        for group in self.state.weight_optimizer.param_groups:
            group["lr"] = settings.weight_learning_rate * max(rate, 0.01)
        start = len(self.state.weight_steps)
        for images, labels in batches(self.for_weights, self.data, settings.batch_size, self._seed(0), start):
            with torch.no_grad():
                gates, _ = self._draw_gates()
            scores = self.supernet(images, gates)
            loss = F.cross_entropy(scores, labels)
            step = self._record(scores, labels, loss, "weights", len(self.state.weight_steps))
            self.state.weight_optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.state.weight_optimizer.step()
            self.state.weight_steps.append(step)
            yield step

    def _train_gates(self) -> Iterator[StepRecord]:
        """The gate steps that are left of this epoch, as they are made."""
        settings = self.settings
        steps_a_pass, passes = self._gate_passes
        done, start = divmod(len(self.state.gate_steps), steps_a_pass)
        loaded = itertools.chain.from_iterable(
            batches(self.for_gates, self.data, settings.batch_size, self._seed(1 + p), start if p == done else 0)
            for p in range(done, passes)
        )
        for images, labels in loaded:
            fraction = (len(self.state.gate_steps) + 1) / (passes * steps_a_pass)
            target_entropy = settings.schedule.entropy((self._gate_epoch + fraction) / self._num_gate_epochs)
            gates, drawn = self._draw_gates()
            scores = self.supernet(images, gates)
            cross_entropy = F.cross_entropy(scores, labels)
            step = self._record(scores, labels, cross_entropy, "gates", len(self.state.gate_steps))
            if drawn is not None:
                cross_entropy = self.state.resolution.with_score(cross_entropy, self.logits, drawn)
            loss = self.loss(cross_entropy, self.logits, target_entropy)
            (self.logits.logits.grad,) = torch.autograd.grad(loss, [self.logits.logits])
            if not bool(self.logits.logits.grad.isfinite().all()):
                raise DmaskError(
                    f"search (gates): a gradient is not finite at epoch {self.state.epoch}, step"
                    f" {len(self.state.gate_steps)}; the last good epoch is kept",
                    "raise --last-temperature or lower --gate-learning-rate, and begin anew with --restart",
                )
            self.state.gate_optimizer.step()
            self.state.gate_steps.append(step)
            yield step

    def _draw_gates(self) -> tuple[Gates, int | None]:
        """Gates for one step, and the resolution that was drawn, if one was."""
        gates = self.logits.sample(self._temperature, self.state.noise)
        return self.state.resolution.draw(gates, self.logits, self.state.noise) if self.sampled else (gates, None)

    def _record(self, scores: Tensor, labels: Tensor, cross_entropy: Tensor, part: str, step: int) -> StepRecord:
        value = check_loss(cross_entropy, self.data.classes, f"search ({part})", self.state.epoch, step)
        return StepRecord(value, float((scores.detach().argmax(1) == labels).float().mean()))

    def _seed(self, part: int) -> int:
        return (self.settings.seed * 10_007 + self.state.epoch) * 101 + part


def _check_split(for_weights: ImageSet, for_gates: ImageSet, share: float) -> None:
    """Checks that weights and gates have images to learn from."""
    counts = len(for_weights), len(for_gates)
    if not all(counts):
        raise DmaskError(
            f"a search needs images for its weights and for its gates; of {sum(counts)} training images a share of"
            f" {share:g} for the gates leaves {counts[0]} and {counts[1]}",
            "give more training images",
        )


def _as_gates_see_it(cost: SpaceCost, settings: SearchSettings) -> ExpectedCost:
    """The exact expectation, or by the paper's effective shapes where those are defined and wanted."""
    if settings.expectation == "effective_shapes" and (cost.name == "macs" or cost.name == "params"):
        return EffectiveShapes(cost.space, "macs" if cost.name == "macs" else "params")
    return cost


def gate_loss(costs: Sequence[ExpectedCost], limits: Sequence[float], settings: SearchSettings) -> GateLoss:
    """The loss that the settings name, on ``costs`` with their budgets."""
    match settings.loss:
        case "budget":
            return BudgetLoss(costs, limits, settings.control)
        case "fbnet":
            return FbnetLoss(costs, limits, settings.fixed)
        case "linear":
            return LinearLoss(costs, limits, settings.fixed)
