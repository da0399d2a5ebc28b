"""`AccuracyRecord`: what a trained child does on images that nothing was chosen by."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.names import ClassNames


class AccuracyRecord(FileRecord):
    """``test.json``: the accuracy of a run's weights on the test split, or on ``val`` where the data has none.

    ``confusion``: images by true class (rows) and by predicted class; ``interval``: of the accuracy, 95%, by Wilson's
    score; ``num_skipped``: test images that do not decode and were left out; ``times_opened``: how often the test split
    was read for this run, with other weights each time.
    """

    file_format: ClassVar[str] = "dmask-test"

    split: Literal["test", "val"]
    data_digest: str
    weights_sha256: str
    class_names: ClassNames
    confusion: tuple[tuple[NonNegativeInt, ...], ...]
    accuracy: float = Field(ge=0, le=1)
    interval: tuple[float, float]
    num_skipped: NonNegativeInt = 0
    times_opened: PositiveInt

    @property
    def num_images(self) -> int:
        """How many images it was measured on."""
        return sum(map(sum, self.confusion))

    def class_accuracies(self) -> tuple[float | None, ...]:
        """The share of each class's images that were recognized; None for a class without images."""
        return tuple(row[k] / sum(row) if sum(row) else None for k, row in enumerate(self.confusion))
