"""The reference for artifacts: the run's network in PyTorch, with images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.accuracy import Split
from dmask_mobile.records.artifact import UNIT_RANGE, Output, Preprocessing
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.verification import Check, Verdict, line_of
from export.deployable import Deployable

ACCURACY_TOLERANCE = 0.005
"""How far the accuracy of the stored weights may differ from the recorded one, on all images of a split."""
SAMPLING_SPREADS = 4
"""The number of standard deviations that is added if the images are a sample of the split."""
IMAGES_OF = {"test": "test images", "val": "validation images"}


@dataclass(frozen=True)
class HeldOut:
    """Images (N, C, R, R) in 0..1 of the test split with labels (N,), out of ``population`` images."""

    images: Tensor
    labels: Tensor
    population: int


@dataclass(frozen=True)
class Reference:
    """The run's PyTorch network and images (N, C, R, R) in 0..1, which are validation images if the run has data.

    ``weights_digest``: the digest of the network's weights, as in artifacts. ``preprocessing``: the run's
    normalization. ``labels`` (N,): None for images without labels. ``recorded_accuracy``: the accuracy in ``run.json``,
    None if it has none. ``test``: the images for accuracies; None if the data has no test split, then ``images`` are
    used.
    """

    network: ChildNetwork
    child_digest: str
    weights_digest: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    recorded_accuracy: float | None = None
    test: HeldOut | None = None

    @cached_property
    def logits(self) -> Tensor:
        """The network's output for the images (N, classes), with the normalization of the run, not of an artifact."""
        return self._logits_of(self.images)

    @cached_property
    def test_logits(self) -> Tensor:
        """The same for the images of the test split, if there is one."""
        return torch.empty(0) if self.test is None else self._logits_of(self.test.images)

    @torch.no_grad()
    def _logits_of(self, images: Tensor) -> Tensor:
        plain = self.preprocessing.model_copy(update={"layout": "NCHW", "input_range": UNIT_RANGE})
        model = Deployable(self.network, plain)
        return torch.cat([model(image[None]) for image in images])

    def scores(self, output: Output) -> Tensor:
        """The expected output of an artifact for the images (N, classes)."""
        return self.logits.softmax(1) if output == "probabilities" else self.logits

    def test_scores(self, output: Output) -> Tensor:
        """The expected output of an artifact for the images of the test split (N, classes)."""
        return self.test_logits.softmax(1) if output == "probabilities" else self.test_logits

    @property
    def split(self) -> Split | None:
        """The split on which accuracies are compared; None for images without labels."""
        if self.test is not None:
            return "test"
        return None if self.labels is None else "val"


def check_accuracy(reference: Reference, population: int, other_images: bool) -> Check | None:
    """The line that compares the accuracy of the stored weights with the one in ``run.json``; None without one.

    This line reveals damaged weights or weights of another training; every other line compares with these weights.

    Args:
        reference: network, images and the recorded accuracy.
        population: the number of all validation images.
        other_images: whether the images differ from those of the recorded accuracy; then a difference means nothing.
    """
    recorded, labels = reference.recorded_accuracy, reference.labels
    if recorded is None:
        return None
    if labels is None:
        note = "the images have no labels of the child's classes"
        return line_of("run", "accuracy of the weights", "share", recorded, None, "-", "not verified", note)
    measured = float((reference.logits.argmax(1) == labels).double().mean())
    return _accuracy_line("val", recorded, measured, len(labels), population, other_images)


def check_test_accuracy(reference: Reference, recorded: float) -> Check | None:
    """The line that compares the accuracy of the stored weights with ``test.json``; None without a test split.

    Args:
        reference: network and images of the test split.
        recorded: the accuracy of these weights in ``test.json``.
    """
    if reference.test is None:
        return None
    measured = float((reference.test_logits.argmax(1) == reference.test.labels).double().mean())
    return _accuracy_line("test", recorded, measured, len(reference.test.labels), reference.test.population, False)


def _accuracy_line(
    split: Split, recorded: float, measured: float, count: int, population: int, other_images: bool
) -> Check:
    """The line about the accuracy of the weights on one split.

    Allowed are 0.5 points plus four standard deviations of the accuracy on this number of images, drawn without
    replacement: ``sqrt(p (1 - p) / n * (1 - n / population))``.
    """
    variance = recorded * (1 - recorded) / count * (1 - count / population)
    tolerance = ACCURACY_TOLERANCE + SAMPLING_SPREADS * math.sqrt(variance)
    note = f"{count} of {population} {IMAGES_OF[split]}"
    kept = abs(measured - recorded) <= tolerance
    if not kept and other_images:
        note = f"{note}, which differ from those of run.json"
    elif not kept:
        note = f"{note}; the weights are not the trained ones: train again, or restore them and export again"
    verdict: Verdict = "passed" if kept else "not verified" if other_images else "failed"
    name = f"accuracy of the weights ({split})"
    return line_of("run", name, "share", recorded, measured, f"{tolerance:.2%}", verdict, note)


def random_images(child: ChildSpec, count: int) -> Tensor:
    """Images (N, C, R, R) in 0..1 for a network without a data set: coarse and fine noise, the same every time.

    Numerics need no labels. Plain noise would look the same to a network in every place and every image.
    """
    generator = torch.Generator().manual_seed(0)
    _, channels, size, _ = child.input_shape
    images = torch.zeros(count, channels, size, size)
    for cells, share in ((3, 0.6), (12, 0.25), (size, 0.15)):
        noise = torch.rand(count, channels, cells, cells, generator=generator)
        images += share * F.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
    return images
