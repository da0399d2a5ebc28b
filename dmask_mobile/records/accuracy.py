"""`AccuracyRecord`: the accuracy of a trained child on validation or test images, for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from dmask_mobile.errors import shown
from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.names import ClassNames

Split = Literal["test", "val"]
CONFIDENCE = 0.95
ROUNDING = 1e-5  # of an accuracy that was written as a decimal number


class AccuracyRecord(FileRecord):
    """``val.json``: the accuracy of a run's weights on the validation images; ``test.json``: on the test split, or on
    ``val`` where the data has none.

    ``confusion``: the number of images by true class (rows) and predicted class (columns). ``interval``: the 95%
    interval of the accuracy (Wilson's score). ``num_skipped``: images of the split that could not be decoded and were
    left out. ``num_training_images``: how many images the weights were trained on, where that is known.
    ``times_opened``: how often the test split had been opened for this run; 0 for ``val`` (see `SplitOpenings`). The
    file also contains ``class_accuracies``, which are computed from ``confusion``.
    """

    file_format: ClassVar[str] = "dmask-test"
    file_version: ClassVar[int] = 2  # version 1 had no accuracies of classes
    oldest_version: ClassVar[int | None] = 1
    max_bytes: ClassVar[int] = 256 * 2**20  # a matrix of 1,000 classes takes 2 MB
    indent: ClassVar[int | None] = None

    split: Split
    data_digest: str
    weights_sha256: str
    class_names: ClassNames
    confusion: tuple[tuple[NonNegativeInt, ...], ...]
    accuracy: float = Field(ge=0, le=1)
    interval: tuple[float, float]
    num_skipped: NonNegativeInt = 0
    num_training_images: PositiveInt | None = None
    times_opened: NonNegativeInt = 0

    def to_dict(self) -> dict[str, Any]:
        """The file's content: the head, the fields and the accuracy of each class."""
        return {**super().to_dict(), "class_accuracies": self.class_accuracies()}

    @classmethod
    def from_dict(cls, content: object, source: str) -> Self:
        """The record in a parsed file; see `FileRecord.from_dict`."""
        if isinstance(content, dict):
            content = {key: value for key, value in content.items() if key != "class_accuracies"}
        return super().from_dict(content, source)

    @classmethod
    def from_confusion(cls, confusion: Sequence[Sequence[int]], **fields: Any) -> Self:
        """The record whose accuracy and interval are computed from ``confusion``.

        Args:
            confusion: images by true class (rows) and by predicted class; at least one image.
            fields: all other fields.
        """
        correct, count = _counts(confusion)
        return cls(
            confusion=tuple(map(tuple, confusion)),
            accuracy=correct / count,
            interval=wilson_interval(correct, count),
            **fields,
        )

    @model_validator(mode="after")
    def _check_confusion(self) -> Self:
        """Checks that the accuracy and its interval are those of the confusion matrix."""
        classes = len(self.class_names)
        if {classes} != {len(self.confusion), *map(len, self.confusion)}:
            raise ValueError(
                f"confusion must have a row and a column for each of {classes} classes, it has {len(self.confusion)}"
                f" rows of {shown(sorted(set(map(len, self.confusion))))} columns"
            )
        correct, count = _counts(self.confusion)
        if not count:
            raise ValueError("confusion has no images")
        if abs(self.accuracy - correct / count) > ROUNDING:
            raise ValueError(
                f"accuracy is {self.accuracy:.6g}, but {correct:,} of {count:,} images in confusion are correct,"
                f" {correct / count:.6g}"
            )
        low, high = wilson_interval(correct, count)
        if max(abs(self.interval[0] - low), abs(self.interval[1] - high)) > ROUNDING:
            raise ValueError(
                f"interval is {self.interval[0]:.6g} to {self.interval[1]:.6g}, but confusion gives {low:.6g} to"
                f" {high:.6g}"
            )
        return self

    @property
    def num_images(self) -> int:
        """The number of images that were evaluated."""
        return sum(map(sum, self.confusion))

    def class_accuracies(self) -> tuple[float | None, ...]:
        """The share of each class's images that were classified correctly; None for a class without images."""
        return tuple(row[k] / sum(row) if sum(row) else None for k, row in enumerate(self.confusion))


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share at `CONFIDENCE` (Wilson, 1927), without SciPy: every reader checks it.

    >>> [round(end, 3) for end in wilson_interval(9, 10)]
    [0.596, 0.982]
    """
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    share = correct / count
    middle = share + z2 / (2 * count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    low, high = ((middle + sign * half) / (1 + z2 / count) for sign in (-1, 1))
    return (low if correct else 0.0), (high if correct < count else 1.0)


def _counts(confusion: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The number of correctly classified images, and of all images."""
    return sum(row[k] for k, row in enumerate(confusion)), sum(map(sum, confusion))
