"""Values that are computed from a confusion matrix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from dmask_mobile.errors import DmaskError
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
    scipy = binomtest(right, count).proportion_ci(0.95, "wilson")
    assert found.interval == pytest.approx((scipy.low, scipy.high), abs=1e-12)
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 0.1}, r"accuracy is 0\.1, but 9 of 10 images in confusion are correct, 0\.9"),
        ({"accuracy": 0.90001001}, "accuracy is"),
        ({"interval": [0.1, 0.2]}, r"interval is 0\.1 to 0\.2, but confusion gives 0\.59585 to 0\.982124"),
        ({"class_names": ["a"]}, r"a row and a column for each of 1 classes, it has 2 rows of \[2\] columns"),
        ({"confusion": [[5, 0], [1]]}, r"a row and a column for each of 2 classes, it has 2 rows of \[1, 2\] columns"),
        ({"confusion": [[0, 0], [0, 0]]}, "confusion has no images"),
    ],
)
def test_a_record_that_contradicts_its_confusion_matrix_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "val.json"
    AccuracyRecord.from_confusion([[5, 0], [1, 4]], class_names=("a", "b"), **OF_WEIGHTS).write(path)
    rounded = {"accuracy": 0.9, "interval": [0.59585, 0.98212]}
    path.write_text(json.dumps(json.loads(path.read_text()) | rounded))
    assert AccuracyRecord.read(path).accuracy == 0.9
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DmaskError, match=rf"val\.json': .*{message}"):
        AccuracyRecord.read(path)
