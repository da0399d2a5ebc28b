"""Several children within the budgets, ranked by their loss with the supernet's weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn

from dmask_mobile.data.batches import Reading, batches
from dmask_mobile.data.images import ImageData, ImageSet, normalized
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget, derive_within
from dmask_mobile.search.derive import FLOOR, log_scores, score_of
from dmask_mobile.search.near_budget import centre_on_budgets, draw_near, tightest_share
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.subnet import extract_subnet
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.evaluation import evaluate

FLATTER, MAX_DRAWS_A_CHILD = 0.7, 40  # for gates whose draws repeat
RECALIBRATION_BATCHES, BATCH_SIZE = 20, 128


class Candidate(NamedTuple):
    """A child within the budgets, its score by the gates, and its cross-entropy and accuracy with supernet weights.

    ``exported_accuracy``: that of its export; None if it was not exported.
    """

    choice: Choice
    score: float
    loss: float
    accuracy: float
    exported_accuracy: float | None = None


def draw_within(budgets: Sequence[Budget], logits: GateLogits, count: int, generator: torch.Generator) -> list[Choice]:
    """At most ``count`` different children within the budgets: first the best one by the gates, then random draws.

    The gates are flattened while draws repeat or exceed a budget, because decided gates would give the same child
    again.
    """
    space = budgets[0].cost.space
    best = derive_within(budgets, logits.as_arrays()).choice
    found = {space.child(best).digest(): best}
    flatter = GateLogits(space)
    flatter.load_state_dict(logits.state_dict())
    for _ in range(MAX_DRAWS_A_CHILD * count):
        if len(found) >= count:
            break
        choice = draw_near(flatter, budgets, generator, FLOOR)
        digest = space.child(choice).digest()
        if digest not in found and FLOOR <= tightest_share(budgets, choice) <= 1:
            found[digest] = choice
            continue
        with torch.no_grad():
            flatter.logits.mul_(FLATTER)
        centre_on_budgets(flatter, [budget.cost for budget in budgets], [budget.limit for budget in budgets])
    return list(found.values())


def rank(
    choices: Sequence[Choice],
    supernet: MaskedSupernet,
    probabilities: Sequence[np.ndarray],
    images: ImageSet,
    data: ImageData,
    progress: Progress = silent,
) -> list[Candidate]:
    """The children in order of rising cross-entropy on ``images``, each with its slice of the supernet's weights.

    Each child runs at its own resolution. Batch norms use the statistics of each batch, as in training, because the
    running statistics of the supernet belong to mixtures of children.
    """
    scores = log_scores(probabilities)
    candidates = []
    for number, choice in enumerate(choices, start=1):
        loss, accuracy = _loss_and_accuracy(supernet, choice, images, data)
        candidates.append(Candidate(choice, score_of(supernet.space, scores, choice), loss, accuracy))
        progress("rank", number, len(choices), f"loss {loss:.3f}, accuracy {accuracy:.1%}")
    return sorted(candidates, key=lambda candidate: (candidate.loss, -candidate.score))


@torch.no_grad()
def _loss_and_accuracy(
    supernet: MaskedSupernet, choice: Choice, images: ImageSet, data: ImageData
) -> tuple[float, float]:
    """Mean loss and accuracy of a child's slice on ``images``; batch norms use the statistics of each batch."""
    child = extract_subnet(supernet, choice).train()
    device = next(supernet.parameters()).device
    child.to(device=device)
    child.to(memory_format=torch.channels_last)
    seen = data.at(supernet.space.decisions[0].width(choice[0]))
    parts = np.array_split(np.arange(len(images)), max(1, round(len(images) / BATCH_SIZE)))
    loss = correct = 0.0
    for pixels, labels in images.batches([part.tolist() for part in parts]):
        scores = child(normalized(pixels.to(device), seen))
        loss += float(F.cross_entropy(scores, labels.to(device), reduction="sum"))
        correct += float((scores.argmax(1) == labels.to(device)).sum())
    return loss / len(images), correct / len(images)


def recalibrated_accuracy(
    supernet: MaskedSupernet, choice: Choice, images: tuple[ImageSet, ImageSet], data: ImageData, seed: int = 0
) -> float:
    """Top-1 accuracy of a child's slice on ``images[1]``, after its batch norms were recalibrated on ``images[0]``."""
    seen = data.at(supernet.space.decisions[0].width(choice[0]))
    return evaluate(recalibrated_subnet(supernet, choice, images[0], seen, seed), images[1], seen)


def recalibrated_subnet(
    supernet: MaskedSupernet, choice: Choice, images: ImageSet, data: ImageData, seed: int = 0
) -> ChildNetwork:
    """A child's slice with batch norms recalibrated on training images.

    The running statistics of the supernet belong to mixtures of children, so they do not fit a single child.

    Args:
        supernet: the shared weights; the child is on the same device.
        choice: the child.
        images: the images for the statistics of the batch norms.
        data: how networks see images.
        seed: the seed of the order of images.
    """
    child = extract_subnet(supernet, choice).to(device=next(supernet.parameters()).device)
    recalibrate(child, images, data, seed)
    return child


def recalibrate(network: nn.Module, images: ImageSet, data: ImageData, seed: int = 0) -> None:
    """Replaces the running statistics of a network's batch norms by those of training images."""
    network.to(memory_format=torch.channels_last)
    reading = Reading(device=next(network.parameters()).device)
    loaded = batches(images, data, BATCH_SIZE, seed, reading=reading)
    update_bn((batch.images for batch in itertools.islice(loaded, RECALIBRATION_BATCHES)), network)
