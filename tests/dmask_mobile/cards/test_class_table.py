"""The accuracies of classes, and their files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dmask_mobile.cards.class_table import class_rows, confused_pairs, hardest_classes, write_tables
from dmask_mobile.records.accuracy import AccuracyRecord
from tests.dmask_mobile.hostile import NAMES

OF_WEIGHTS = {"split": "val", "data_digest": "d", "weights_sha256": "w"}


def record_of(confusion: list[list[int]], names: tuple[str, ...]) -> AccuracyRecord:
    return AccuracyRecord.from_confusion(confusion, class_names=names, **OF_WEIGHTS)


def test_each_class_has_its_share_and_its_worst_mistake() -> None:
    found = record_of([[6, 1, 3], [0, 5, 0], [0, 0, 0]], ("a", "b", "c"))
    assert list(class_rows(found)) == [
        (0, "a", 10, 6, 0.6, "c", 3),
        (1, "b", 5, 5, 1.0, "", 0),
        (2, "c", 0, 0, None, "", 0),
    ]
    assert [row.name for row in hardest_classes(found, 5)] == ["a", "b"]
    assert confused_pairs(found, 1) == [("a", "c", 3)]
    assert confused_pairs(found, 9) == [("a", "c", 3), ("a", "b", 1)]


def test_the_files_can_be_read_and_hold_no_formula(tmp_path: Path) -> None:
    count = len(NAMES)
    write_tables(record_of([[r * c for c in range(count)] for r in range(count)], NAMES), tmp_path, "val")
    with (tmp_path / "val_confusion.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[0] == "true class"
    assert head[1] == f"'{NAMES[0]}"
    assert head[2] == NAMES[1]
    assert [[int(cell) for cell in row[1:]] for row in rows] == [[r * c for c in range(count)] for r in range(count)]
    with (tmp_path / "val_classes.csv").open(encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    assert (classes[2]["name"], classes[2]["images"], classes[2]["correct"]) == (NAMES[2], "90", "4")
    assert float(classes[2]["accuracy"]) == pytest.approx(4 / 90)
    assert classes[0]["accuracy"] == ""
    cells = [cell for row in (head, *rows) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
