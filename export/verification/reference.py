"""What artifacts are compared with: the run's network in PyTorch on images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.artifact import UNIT_RANGE, Output, Preprocessing
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.verification import Check, Verdict, line_of
from export.deployable import Deployable

ACCURACY_TOLERANCE = 0.005
"""How far the accuracy of the stored weights may be from the recorded one, on all validation images."""
SAMPLING_SPREADS = 4
"""So many standard deviations more where the images are a sample of the validation images."""


@dataclass(frozen=True)
class Reference:
    """The run's network in PyTorch, and images (N, C, R, R) in 0..1.

    ``weights_digest``: of the network's weights, as artifacts name them; ``preprocessing``: the run's normalization;
    ``labels`` (N,): None for images without; ``recorded_accuracy``: what ``run.json`` says, None where it says nothing.
    """

    network: ChildNetwork
    child_digest: str
    weights_digest: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    recorded_accuracy: float | None = None

    @cached_property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """What the network gives (N, classes), normalized as the run says, not as an artifact does."""
        plain = self.preprocessing.model_copy(update={"layout": "NCHW", "input_range": UNIT_RANGE})
        model = Deployable(self.network, plain)
        return torch.cat([model(image[None]) for image in self.images])

    def scores(self, output: Output) -> Tensor:
        """What an artifact should give (N, classes)."""
        return self.logits.softmax(1) if output == "probabilities" else self.logits


def check_accuracy(reference: Reference, population: int, other_images: bool) -> Check | None:
    """The line that compares the accuracy of the stored weights with the one in ``run.json``; None without one.

    A damaged weight, or weights of another training, show here: every other line compares with these weights.
    Allowed are 0.5 points, and four standard deviations of the accuracy on so many of the validation images, drawn
    without putting back: ``sqrt(p (1 - p) / n * (1 - n / population))``.

    Args:
        reference: network, images and the recorded accuracy.
        population: how many validation images there are.
        other_images: whether they are others than those that the recorded accuracy was measured on; then a difference
            shows nothing.
    """
    recorded, labels = reference.recorded_accuracy, reference.labels
    if recorded is None:
        return None
    if labels is None:
        note = "the images have no labels of the child's classes"
        return line_of("run", "accuracy of the weights", "share", recorded, None, "-", "not verified", note)
    measured = float((reference.logits.argmax(1) == labels).double().mean())
    variance = recorded * (1 - recorded) / len(labels) * (1 - len(labels) / population)
    tolerance = ACCURACY_TOLERANCE + SAMPLING_SPREADS * math.sqrt(variance)
    note = f"{len(labels)} of {population} validation images"
    kept = abs(measured - recorded) <= tolerance
    if not kept and other_images:
        note = f"{note}, which are not those of run.json"
    elif not kept:
        note = f"{note}; the weights are not those that were trained: train again, or restore them and export again"
    verdict: Verdict = "passed" if kept else "not verified" if other_images else "failed"
    return line_of("run", "accuracy of the weights", "share", recorded, measured, f"{tolerance:.2%}", verdict, note)


def random_images(child: ChildSpec, count: int) -> Tensor:
    """Images (N, C, R, R) in 0..1 for a network without a data set: coarse and fine noise, the same ones every time.

    Numbers need no labels. Plain noise would look the same to a network everywhere and in every image.
    """
    generator = torch.Generator().manual_seed(0)
    _, channels, size, _ = child.input_shape
    images = torch.zeros(count, channels, size, size)
    for cells, share in ((3, 0.6), (12, 0.25), (size, 0.15)):
        noise = torch.rand(count, channels, cells, cells, generator=generator)
        images += share * F.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
    return images
