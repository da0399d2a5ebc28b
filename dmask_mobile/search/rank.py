"""Several children within the budgets, ranked by what the supernet says of them.

Children are drawn by perturbation: each logit gets Gumbel noise and the exact derivation runs on the result. With
nothing to hold to that is sampling from the gates (the Gumbel-max trick); with budgets every draw is within them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.optim.swa_utils import update_bn

from dmask_mobile.data.batches import Reading, batches
from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget, derive_within
from dmask_mobile.search.derive import log_scores, score_of
from dmask_mobile.supernet.subnet import extract_subnet
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.evaluation import evaluate

ATTEMPTS_PER_CHILD, GROWTH, MAX_SCALE = 8, 1.5, 64.0
RECALIBRATION_BATCHES, BATCH_SIZE = 20, 128


class Candidate(NamedTuple):
    """A child within the budgets, its score by the gates and its accuracy with the supernet's weights."""

    choice: Choice
    score: float
    accuracy: float


def draw_within(
    budgets: Sequence[Budget], probabilities: Sequence[np.ndarray], count: int, random: np.random.Generator
) -> list[Choice]:
    """At most ``count`` different children within the budgets: the best one first, then draws.

    The noise grows while draws repeat: decided gates would give the same child again and again.
    """
    space = budgets[0].cost.space
    best = derive_within(budgets, probabilities).choice
    found = {space.child(best).digest(): best}
    scores = log_scores(probabilities)
    scale = 1.0
    for _ in range(ATTEMPTS_PER_CHILD * count):
        if len(found) >= count:
            break
        noisy = [score + scale * random.gumbel(size=score.shape) for score in scores]
        choice = derive_within(budgets, [np.exp(values - values.max()) for values in noisy]).choice
        digest = space.child(choice).digest()
        if digest in found:
            scale = min(MAX_SCALE, GROWTH * scale)
        else:
            found[digest] = choice
    return list(found.values())


def rank(
    choices: Sequence[Choice],
    supernet: MaskedSupernet,
    probabilities: Sequence[np.ndarray],
    images: tuple[ImageSet, ImageSet],
    data: ImageData,
    progress: Progress = silent,
) -> list[Candidate]:
    """The children by falling accuracy on the second image set, batch norms recalibrated on the first.

    Each child takes its slice of the supernet and sees images at its own resolution.
    """
    scores = log_scores(probabilities)
    candidates = []
    for number, choice in enumerate(choices, start=1):
        accuracy = recalibrated_accuracy(supernet, choice, images, data)
        candidates.append(Candidate(choice, score_of(supernet.space, scores, choice), accuracy))
        progress("rank", number, len(choices), f"accuracy {accuracy:.1%}")
    return sorted(candidates, key=lambda candidate: (-candidate.accuracy, -candidate.score))


def recalibrated_accuracy(
    supernet: MaskedSupernet, choice: Choice, images: tuple[ImageSet, ImageSet], data: ImageData, seed: int = 0
) -> float:
    """Top-1 accuracy of a child's slice on ``images[1]`` after its batch norms have seen ``images[0]``."""
    seen = data.at(supernet.space.decisions[0].width(choice[0]))
    return evaluate(recalibrated_subnet(supernet, choice, images[0], seen, seed), images[1], seen)


def recalibrated_subnet(
    supernet: MaskedSupernet, choice: Choice, images: ImageSet, data: ImageData, seed: int = 0
) -> ChildNetwork:
    """A child's slice whose batch norms have seen training images: those of the supernet are of mixtures of children.

    Args:
        supernet: the shared weights; the child is on the same device.
        choice: the child.
        images: what the batch norms see.
        data: how networks see images.
        seed: of the images' order.
    """
    child = extract_subnet(supernet, choice)
    device = next(supernet.parameters()).device
    child.to(device=device)
    child.to(memory_format=torch.channels_last)
    loaded = batches(images, data, BATCH_SIZE, seed, reading=Reading(device=device))
    update_bn((batch.images for batch in itertools.islice(loaded, RECALIBRATION_BATCHES)), child)
    return child
