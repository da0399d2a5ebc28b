"""The search loop: weight steps on one part of the training images, gate steps on the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.costs.effective_shapes import EffectiveShapes
from dmask_mobile.costs.model import ExpectedCost, SpaceCost
from dmask_mobile.data.batches import Batch, Reading, check_batch
from dmask_mobile.data.images import ImageData, ImageSet, split_for_search
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.run import TRIALS_NAME
from dmask_mobile.search import checkpoint as checkpoints
from dmask_mobile.search.budgets import Budget, check_budgets, checked_budgets
from dmask_mobile.search.log import SearchLog
from dmask_mobile.search.loss_model import Trial
from dmask_mobile.search.losses import BudgetLoss, FbnetLoss, GateLoss, LinearLoss
from dmask_mobile.search.metrics import SearchMetrics, mean_entropy
from dmask_mobile.search.parts import GateTraining, SearchParts
from dmask_mobile.search.sensitivity import Sensitivity
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.single_path import SinglePath
from dmask_mobile.search.soft_gates import SoftGates
from dmask_mobile.search.state import Position, StepRecord, new_state
from dmask_mobile.search.trials import make_trials
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import content_digest
from dmask_mobile.training.checks import Agreed, Agreement, check_weights
from dmask_mobile.training.distillation import Teacher, distillation_loss
from dmask_mobile.training.going_on import go_on
from dmask_mobile.training.machine import Machine

RISING = 0.05  # of the steps
LOWEST_RATE = 0.01  # of the first learning rate
TAUGHT_SHARE, TEMPERATURE = 0.5, 2.0  # as in recipes


class SearchResult(NamedTuple):
    """The result of a search: shared weights, decided logits, expected costs and mean normalized entropy.

    ``trials``: the children that were trained shortly. ``warnings`` describe problems that did not stop the search.
    """

    supernet: MaskedSupernet
    logits: GateLogits
    expected: tuple[float, ...]
    entropy: float
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]


class Searcher:
    """One search over ``space`` on ``data`` under ``budgets``, on the device and the processes of ``machine``.

    ``run`` resumes from ``checkpoint`` if that exists, and writes it after every epoch, every ten minutes, and on
    SIGTERM or Ctrl-C. All processes draw the same gates from one generator on the CPU, and each computes its part of
    every batch. accelerate averages the gradients of the supernet's weights. The gradients of the gates are averaged
    separately, because ``torch.autograd.grad`` does not work through accelerate's wrapper.

    Args:
        space: the space.
        data: its images.
        budgets: what the child may cost.
        settings: length and rates.
        machine: device and processes.
        weights: of the widest child, by the names of the supernet: what the search starts from.

    Raises:
        DmaskError: for a budget that cannot be reached, before anything is trained.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        budgets: Sequence[Budget],
        settings: SearchSettings,
        machine: Machine | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        check_budgets(budgets)
        self.machine = machine or Machine()
        if self.machine.compiled and settings.method == "single_path":
            raise DmaskError(
                "torch.compile needs the same network in every step, but the method 'single_path' trains a different"
                " child in each",
                "search without --compile, or with --method dmasking",
            )
        self.reading = Reading(self.machine.share, 1, self.machine.device)
        self.data = data
        self.settings = settings
        self.budgets = checked_budgets(budgets)
        generator = torch.Generator().manual_seed(settings.seed)
        self.supernet = MaskedSupernet(space, generator)
        start_from(self.supernet, weights or {})
        self.teacher = _teacher(space, weights or {}, self.machine) if settings.teacher == "original" else None
        self.supernet.to(device=self.machine.device)
        self.supernet.to(memory_format=torch.channels_last)
        self.for_weights, self.for_gates = split_for_search(data.train, settings.gate_share, generator)
        _check_split(self.for_weights, self.for_gates, settings.gate_share)
        for images in (self.for_weights, self.for_gates):
            check_batch(images, settings.batch_size, self.reading)
        costs = [_as_gates_see_it(budget.cost, settings) for budget in self.budgets]
        self.loss = gate_loss(costs, [budget.limit for budget in self.budgets], settings)
        self.metrics = SearchMetrics(self.budgets, costs, can_collapse=settings.method == "dmasking")
        self.state = new_state(self.supernet, self.loss, settings, self.machine)
        self.logits = self.state.logits
        self.called, self.stepped = self.machine.prepared(self.supernet, self.state.weight_optimizer)
        self.parts = SearchParts(
            supernet=self.supernet,
            state=self.state,
            settings=settings,
            budgets=self.budgets,
            loss=self.loss,
            data=data,
            for_weights=self.for_weights,
            for_gates=self.for_gates,
            machine=self.machine,
            reading=self.reading,
        )
        self.gate_training = self._gate_training(weights or {})

    def _gate_training(self, weights: Mapping[str, Tensor]) -> GateTraining:
        match self.settings.method:
            case "single_path":
                return SinglePath(self.parts)
            case "dmasking":
                return SoftGates(self.parts)
            case "sensitivity":
                return Sensitivity(self.parts, _given_supernet(self.supernet.space, weights, self.machine))

    def run(self, checkpoint: Path, progress: Progress = silent, *, previous: bool = False) -> SearchResult:
        """Searches to the end; ``metrics.jsonl`` and ``tensorboard/`` lie beside the checkpoint.

        Args:
            checkpoint: the search resumes from this file if it exists.
            progress: is called after each step and each epoch.
            previous: resume from the checkpoint before the last.

        Raises:
            DmaskError: for a loss that is not finite or explodes, or a checkpoint of other settings.
            StoppedError: after SIGTERM or Ctrl-C; the current step is finished and saved first.
        """
        state, epochs, machine = self.state, self.settings.epochs, self.machine
        identity = checkpoints.identity_of(self.supernet.space, self.data, self.budgets, self.settings)
        identity["mixed_precision"] = machine.mixed_precision
        take = checkpoints.taker(checkpoint, identity, state, self._last_position)
        go_on(checkpoint, take, machine, previous)
        machine.check_same(
            content_digest([identity, *state.position, dict(self.supernet.named_parameters())]).encode(), "beginnings"
        )
        if machine.is_main:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)

        def keep() -> None:
            content = state.to_dict()
            if machine.is_main:
                checkpoints.write(checkpoint, identity, content)
            agreement.kept()

        log: AbstractContextManager[SearchLog | None] = (
            SearchLog(checkpoint.parent, state.history) if machine.is_main else nullcontext()
        )
        with log as metrics, stop_signals() as stopped_by:
            agreement = Agreement(machine, stopped_by)
            while state.epoch < epochs:
                for agreed in self._train_epoch(agreement, checkpoint.parent / TRIALS_NAME, progress):
                    if agreed.signal is not None or agreed.keep:
                        check_weights(self.supernet, "search", state.epoch)
                        keep()
                    if agreed.signal is not None:
                        raise StoppedError(agreed.signal, "search")
                    self._tell_steps(progress)
                check_weights(self.supernet, "search", state.epoch)
                self._finish_epoch()
                keep()
                if metrics is not None:
                    metrics.write(state.history)
                progress("search", state.epoch, epochs, self.metrics.note(state))
        expected, entropy = self.metrics.expected(self.logits), mean_entropy(self.logits)
        return SearchResult(
            self.supernet, self.logits, expected, entropy, tuple(state.trials), self.metrics.warnings(state)
        )

    def num_steps(self) -> tuple[int, int]:
        """The numbers of weight steps and gate steps in the whole search."""
        _, weight_steps, gate_steps = self._last_position
        return self.settings.epochs * weight_steps, self.parts.num_gate_epochs * gate_steps

    def _tell_steps(self, progress: Progress) -> None:
        """Reports the progress within the current epoch."""
        last, state = self._last_position, self.state
        steps = last.weight_steps + (last.gate_steps if self.parts.gate_epoch >= 0 else 0)
        done = len(state.weight_steps) + len(state.gate_steps)
        if done < steps:
            progress("epoch", done, steps)

    @property
    def _last_position(self) -> Position:
        """The number of epochs, and the number of steps in each."""
        return Position(self.settings.epochs, self.parts.num_weight_steps, self.gate_training.num_steps)

    def _train_epoch(self, agreement: Agreement, folder: Path, progress: Progress) -> Iterator[Agreed]:
        """Runs the remaining steps of the current epoch, in the last one also the trials; yields the result of each."""
        self.called.train()
        yield from self.train_weights(agreement)
        if self.parts.gate_epoch >= 0:
            yield from self.train_gates(agreement)
            if self.state.epoch + 1 == self.settings.epochs:
                yield from self._make_trials(agreement, folder, progress)
            self.gate_training.finish_epoch()

    def _make_trials(self, agreement: Agreement, folder: Path, progress: Progress) -> Iterator[Agreed]:
        """The trials that are left; a checkpoint is due before the first one and after each."""
        if isinstance(self.gate_training, SinglePath):
            yield agreement(0.0, 0.0, 1.0)._replace(keep=True)
            for trial in make_trials(self.parts, self.gate_training, folder, progress):
                yield agreement(trial.loss, trial.accuracy, 1.0)._replace(keep=True)

    def _finish_epoch(self) -> None:
        state = self.state
        self.machine.share_norms(self.supernet)
        self.machine.check_same(state.shared_content(), "gates and controllers")
        state.history.append(self.metrics.line(state, self.gate_training.metrics()))
        state.weight_steps, state.gate_steps = [], []
        state.epoch += 1

    def train_weights(self, agreement: Agreement) -> Iterator[Agreed]:
        """Runs the remaining weight steps of this epoch and yields the result of each."""
        parts, state = self.parts, self.state
        parts.agreement = agreement
        if not parts.num_weight_steps:
            return
        for batch in parts.batches(self.for_weights, self.settings.batch_size, parts.seed(0), len(state.weight_steps)):
            self._set_rate()
            scores = self.called(batch.images, self.gate_training.draw())
            loss = self._loss(scores, batch) * batch.weight
            agreed = parts.agree(scores, batch, loss, "weights", len(state.weight_steps))
            self.stepped.zero_grad()
            self.machine.backward(loss)
            self.stepped.step()
            state.weight_steps.append(StepRecord(agreed.loss, agreed.accuracy))
            yield agreed

    def _loss(self, scores_NK: Tensor, batch: Batch) -> Tensor:
        """The sum of the losses of a weight step's images."""
        loss = F.cross_entropy(scores_NK, batch.labels, reduction="sum")
        if self.teacher is None:
            return loss
        taught = distillation_loss(scores_NK, self.teacher(batch.images), TEMPERATURE)
        return (1 - TAUGHT_SHARE) * loss + TAUGHT_SHARE * taught

    def _set_rate(self) -> None:
        """Sets the learning rate of the next weight step: it rises for a twentieth of the search, then falls."""
        steps = self._last_position.weight_steps
        done = (self.state.epoch + len(self.state.weight_steps) / steps) / self.settings.epochs
        rate = min(1.0, (done * steps * self.settings.epochs + 1) / (RISING * steps * self.settings.epochs))
        rate *= max(LOWEST_RATE, 0.5 * (1 + math.cos(math.pi * done)))
        for group in self.state.weight_optimizer.param_groups:
            group["lr"] = self.settings.weight_learning_rate * rate

    def train_gates(self, agreement: Agreement) -> Iterator[Agreed]:
        """Runs the remaining gate steps of this epoch and yields the result of each."""
        self.parts.agreement = agreement
        for agreed in self.gate_training.steps():
            self.state.gate_steps.append(StepRecord(agreed.loss, agreed.accuracy))
            yield agreed


def start_from(supernet: MaskedSupernet, weights: Mapping[str, Tensor]) -> None:
    """Loads the weights of the widest child, without its classifier where that has other classes."""
    own = supernet.state_dict()
    fitting = {name: value for name, value in weights.items() if own[name].shape == value.shape}
    supernet.load_state_dict(own | fitting)


def _given_supernet(space: SearchSpace, weights: Mapping[str, Tensor], machine: Machine) -> MaskedSupernet:
    """The given network with its own classes.

    Raises:
        DmaskError: if there is none.
    """
    if not weights:
        raise DmaskError(
            "the method 'sensitivity' measures a trained network, and this space has no weights",
            "search with another --method, or take the space from a network: dmask space from",
        )
    classes = len(list(weights.values())[-1])
    supernet = MaskedSupernet(space.with_classes(classes))
    start_from(supernet, weights)
    supernet.to(device=machine.device)
    supernet.to(memory_format=torch.channels_last)
    return supernet


def _teacher(space: SearchSpace, weights: Mapping[str, Tensor], machine: Machine) -> Teacher:
    """The given network, which does not change during the search.

    Raises:
        DmaskError: if there are no weights, or they are for other classes.
    """
    network = ChildNetwork(space.child(space.largest()))
    if {name: value.shape for name, value in weights.items()} != {n: v.shape for n, v in network.state_dict().items()}:
        raise DmaskError(
            "the teacher 'original' is a network with trained weights for the classes of the data",
            "search without --teacher, or import a network that was trained on these classes",
        )
    network.load_state_dict(dict(weights))
    return Teacher(network.to(memory_format=torch.channels_last), machine.device)


def _check_split(for_weights: ImageSet, for_gates: ImageSet, share: float) -> None:
    """Checks that weights and gates have images to learn from."""
    counts = len(for_weights), len(for_gates)
    if not all(counts):
        raise DmaskError(
            f"a search needs images for its weights and for its gates; with {sum(counts)} training images and a share"
            f" of {share:g} for the gates there would be {counts[0]} and {counts[1]}",
            "give more training images",
        )


def _as_gates_see_it(cost: SpaceCost, settings: SearchSettings) -> ExpectedCost:
    """The exact expected cost, or that of the paper's effective shapes if it is defined and requested."""
    if settings.expectation == "effective_shapes" and (cost.name == "macs" or cost.name == "params"):
        return EffectiveShapes(cost.space, "macs" if cost.name == "macs" else "params")
    return cost


def gate_loss(costs: Sequence[ExpectedCost], limits: Sequence[float], settings: SearchSettings) -> GateLoss:
    """The loss that the settings select, for ``costs`` and their budgets."""
    match settings.loss:
        case "budget":
            return BudgetLoss(costs, limits, settings.control)
        case "fbnet":
            return FbnetLoss(costs, limits, settings.fixed)
        case "linear":
            return LinearLoss(costs, limits, settings.fixed)
