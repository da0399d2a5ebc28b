"""Values that are computed from a confusion matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.base import MAX_RECORD_BYTES

OF_WEIGHTS = {"split": "val", "data_digest": "d", "weights_sha256": "w"}


@pytest.mark.parametrize(("right", "count"), [(9, 10), (1, 2), (30, 400), (0, 5), (5, 5)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    """The ends of the interval solve (p - k/n)^2 = z^2 p (1 - p) / n (Wilson, 1927)."""
    confusion = [[right, count - right], [0, 0]]
    found = AccuracyRecord.from_confusion(confusion, class_names=("a", "b"), **OF_WEIGHTS)
    share = right / count
    assert (found.accuracy, found.num_images) == (share, count)
    for end in found.interval:
        if 0 < end < 1:
            assert (end - share) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count, rel=1e-4)
    assert found.interval[0] <= share <= found.interval[1]
    assert found.class_accuracies() == (share, None)


def test_a_matrix_of_thousands_of_classes_is_read_again(tmp_path: Path) -> None:
    """This record may be larger than others: 18 MB for 3,000 classes."""
    path = tmp_path / "val.json"
    written = AccuracyRecord.from_confusion([[5, 0], [1, 4]], class_names=("a", "b"), **OF_WEIGHTS)
    written.write(path)
    assert path.read_text().count("\n") == 1
    path.write_text(path.read_text() + " " * MAX_RECORD_BYTES)
    assert AccuracyRecord.read(path) == written
