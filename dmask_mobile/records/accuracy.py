"""`AccuracyRecord`: the accuracy of a trained child on validation or test images, for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt

from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.names import ClassNames

Split = Literal["test", "val"]
CONFIDENCE = 0.95


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
        from scipy.stats import binomtest

        correct, count = sum(row[k] for k, row in enumerate(confusion)), sum(map(sum, confusion))
        interval = binomtest(correct, count).proportion_ci(CONFIDENCE, "wilson")
        return cls(
            confusion=tuple(map(tuple, confusion)),
            accuracy=correct / count,
            interval=(interval.low, interval.high),
            **fields,
        )

    @property
    def num_images(self) -> int:
        """The number of images that were evaluated."""
        return sum(map(sum, self.confusion))

    def class_accuracies(self) -> tuple[float | None, ...]:
        """The share of each class's images that were classified correctly; None for a class without images."""
        return tuple(row[k] / sum(row) if sum(row) else None for k, row in enumerate(self.confusion))
