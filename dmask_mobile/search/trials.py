"""Short trainings of single children, which give information that shared weights do not contain.

A supernet that is trained about as long as one child hardly shows differences between wide and narrow or deep and
shallow children. A tenth of a child's own training does. It starts from the child's part of the supernet's weights:
where little is learned in so short a time, its loss then agrees far better with the final accuracy than from random
weights; elsewhere no difference was seen (docs/search_quality.md). All trials use the same seed for their batches.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dmask_mobile.data.images import ImageData, normalized
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.progress import Progress
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.loss_model import Trial
from dmask_mobile.search.near_budget import draw_near
from dmask_mobile.search.parts import SearchParts
from dmask_mobile.search.proposals import Proposals
from dmask_mobile.search.single_path import SinglePath
from dmask_mobile.supernet.subnet import extract_subnet
from dmask_mobile.training.evaluation import chunks_of
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer, TrainSettings, train_child

WARM_UP = 0.3  # of a short training


def make_trials(parts: SearchParts, gates: SinglePath, folder: Path, progress: Progress) -> Iterator[Trial]:
    """Runs the remaining trials one after the other; the state contains the finished ones.

    Args:
        parts: the search; its images for weights train the children, and its images for gates evaluate them.
        gates: proposes children.
        folder: the folder for checkpoints, from which an interrupted training resumes; it is removed at the end.
        progress: is called after each derivation of a child and the steps of each training.

    Raises:
        StoppedError: after a signal; the current training is saved first.
        DmaskError: for a loss that is not finite.
    """
    settings, state, machine = parts.settings, parts.state, parts.machine
    proposals = Proposals(parts, gates, progress)
    while len(state.trials) < settings.trials:
        number = len(state.trials)
        trial = train_shortly(parts, proposals.next(), folder / f"{number}.pt", progress)
        state.trials.append(trial)
        progress("trial", number + 1, settings.trials, f"loss {trial.loss:.3f}, accuracy {trial.accuracy:.1%}")
        yield trial
    if machine.is_main:
        shutil.rmtree(folder, ignore_errors=True)


def train_shortly(parts: SearchParts, choice: Choice, checkpoint: Path, progress: Progress) -> Trial:
    """Trains one child by the default recipe in small batches, without a moving average of its weights.

    The average would take a fifth of the time, and means little after so few steps. The child is evaluated on the
    gates' images.
    """
    network, data, recipe = _prepared(parts, choice)
    digest = parts.supernet.space.child(choice).digest()
    train_child(network, data, recipe, checkpoint, progress, child_digest=digest, machine=parts.machine)
    loss, accuracy = loss_and_accuracy(network, data, parts.machine)
    return Trial(loss, accuracy, choice)


def trial_trainer(parts: SearchParts, gates: SinglePath) -> Trainer:
    """The training of the first trial, used to estimate its duration."""
    choice = draw_near(gates.prior, parts.budgets, torch.Generator().manual_seed(parts.settings.seed))
    return Trainer(*_prepared(parts, choice), parts.machine)


def _prepared(parts: SearchParts, choice: Choice) -> tuple[ChildNetwork, ImageData, TrainSettings]:
    """A child with its part of the supernet's weights, its images, and the settings of its trial."""
    epochs, batch_size, seed = parts.settings.epochs_of_a_trial, parts.settings.batch_size, parts.settings.seed
    recipe = TrainSettings(
        epochs=epochs, batch_size=batch_size, warmup_epochs=WARM_UP * epochs, ema_decay=None, seed=seed
    )
    resolution = parts.supernet.space.child(choice).resolution
    data = replace(parts.data, train=parts.for_weights, val=parts.for_gates).at(resolution)
    return extract_subnet(parts.supernet, choice), data, recipe


@torch.no_grad()
def loss_and_accuracy(network: nn.Module, data: ImageData, machine: Machine) -> tuple[float, float]:
    """Mean cross-entropy and top-1 accuracy on the validation images; every process evaluates a part of them."""
    network.eval()
    total = torch.zeros(2, dtype=torch.float64)
    chunks = chunks_of(data.val, data)[machine.share.rank :: machine.share.processes]
    with machine.full_precision(network):
        for pixels, labels in data.val.batches(chunks):
            scores, labels = network(normalized(pixels.to(machine.device), data)), labels.to(machine.device)
            total[0] += float(F.cross_entropy(scores, labels, reduction="sum"))
            total[1] += float((scores.argmax(1) == labels).sum())
    loss, accuracy = (machine.total(total) / len(data.val)).tolist()
    return loss, accuracy
