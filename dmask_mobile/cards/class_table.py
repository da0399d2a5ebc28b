"""The accuracy of each class, and a confusion matrix, as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.base import write_atomically

FORMULA_SIGNS = ("=", "+", "-", "@")


class ClassRow(NamedTuple):
    """One class, its accuracy, and the class that its images were most often confused with.

    ``accuracy``: in 0..1; None for a class without images.
    """

    number: int
    name: str
    images: int
    correct: int
    accuracy: float | None
    mistaken_for: str
    times: int


def class_rows(record: AccuracyRecord) -> Iterator[ClassRow]:
    """A row for each class, in the order of the classes."""
    for number, (name, row, share) in enumerate(
        zip(record.class_names, record.confusion, record.class_accuracies(), strict=True)
    ):
        wrong = [0 if other == number else count for other, count in enumerate(row)]
        times = max(wrong)
        mistaken_for = record.class_names[wrong.index(times)] if times else ""
        yield ClassRow(number, name, sum(row), row[number], share, mistaken_for, times)


def hardest_classes(record: AccuracyRecord, most: int) -> list[ClassRow]:
    """The ``most`` classes with the lowest accuracy; classes without images are left out."""
    rows = [row for row in class_rows(record) if row.accuracy is not None]
    return sorted(rows, key=lambda row: (row.accuracy, -row.images))[:most]


def confused_pairs(record: AccuracyRecord, most: int) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: true class, predicted class, number of images."""
    mistakes = [
        (count, -true, -predicted)
        for true, row in enumerate(record.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    names = record.class_names
    return [(names[-true], names[-predicted], count) for count, true, predicted in sorted(mistakes)[: -most - 1 : -1]]


def write_tables(record: AccuracyRecord, folder: Path, stem: str) -> None:
    """Writes ``STEM_classes.csv`` and ``STEM_confusion.csv`` (rows: true class, columns: predicted class).

    If a spreadsheet would interpret a name as a formula, an apostrophe is put before it; ``STEM.json`` has the plain
    names.
    """
    names = [_cell(name) for name in record.class_names]
    classes = ([*row[:1], _cell(row.name), *row[2:5], _cell(row.mistaken_for), row.times] for row in class_rows(record))
    write_atomically(folder / f"{stem}_classes.csv", _csv(ClassRow._fields, classes))
    rows = ([name, *row] for name, row in zip(names, record.confusion, strict=True))
    write_atomically(folder / f"{stem}_confusion.csv", _csv(["true class", *names], rows))


def _csv(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def _cell(name: str) -> str:
    return f"'{name}" if name.lstrip().startswith(FORMULA_SIGNS) else name
