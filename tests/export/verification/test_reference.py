"""The accuracy of the stored weights against the recorded one; images for a network without any."""

from __future__ import annotations

import math

import pytest
import torch

from export.verification.reference import Reference, check_accuracy, random_images
from tests.export.factory import CHILD, reference


def with_accuracy(measured: float, recorded: float | None) -> Reference:
    """A reference whose weights have this accuracy on its 256 images."""
    found = reference(recorded_accuracy=recorded)
    labels = found.logits.argmax(1).clone()
    wrong = round((1 - measured) * len(labels))
    labels[:wrong] = (labels[:wrong] + 1) % CHILD.classes
    return Reference(**{**{name: getattr(found, name) for name in found.__dataclass_fields__}, "labels": labels})


@pytest.mark.parametrize(
    ("measured", "recorded", "population", "verdict"),
    [
        (0.75, 0.75, 256, "passed"),
        (0.75, 0.754, 256, "passed"),  # 0.5 points
        (0.75, 0.756, 256, "failed"),
        (0.016, 1.0, 256, "failed"),  # a damaged weight
        (0.016, 1.0, 10_000, "failed"),
        (0.99, 1.0, 10_000, "failed"),  # where all were right, every part of them is
        (0.75, 0.70, 10_000, "passed"),  # within four standard deviations of a sample: 11.8 points
        (0.75, 0.60, 10_000, "failed"),
        (0.75, 0.60, 300, "failed"),
    ],
)
def test_the_weights_must_have_the_recorded_accuracy(
    measured: float, recorded: float, population: int, verdict: str
) -> None:
    check = check_accuracy(with_accuracy(measured, recorded), population, other_images=False)
    assert check is not None
    assert check.verdict == verdict
    assert (check.artifact, check.predicted) == ("run", recorded)
    tolerance = 0.005 + 4 * math.sqrt(recorded * (1 - recorded) / 256 * (1 - 256 / population))
    assert check.quantity == "accuracy of the weights (val)"
    assert check.allowed == f"{100 * tolerance:.2f}%"


def test_other_images_can_show_that_an_accuracy_holds_but_not_that_it_does_not() -> None:
    right = check_accuracy(with_accuracy(0.75, 0.75), 256, other_images=True)
    other = check_accuracy(with_accuracy(0.75, 0.9), 256, other_images=True)
    assert right is not None
    assert other is not None
    assert (right.verdict, other.verdict) == ("passed", "not verified")
    assert other.note == "256 of 256 validation images, which differ from those of run.json"


def test_without_a_recorded_accuracy_there_is_no_line() -> None:
    assert check_accuracy(with_accuracy(0.75, None), 256, other_images=False) is None


def test_random_images_differ_from_each_other_and_are_the_same_every_time() -> None:
    images = random_images(CHILD, 8)
    assert images.shape == (8, *CHILD.input_shape[1:])
    assert torch.equal(images, random_images(CHILD, 8))
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    means = images.mean((2, 3))
    assert float(means.std(0).min()) > 0.03  # plain noise of 16 x 16 values: 0.29 / 16 = 0.018
