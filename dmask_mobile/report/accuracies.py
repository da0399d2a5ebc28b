"""Makes an `AccuracyView`: the classes that a network confuses, as many as fit on a page."""

from __future__ import annotations

from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.report.records import AccuracyView, ClassAccuracy, Confusion

MAX_MATRIX_CLASSES = 40  # with more classes, the cells of the picture are too small
MAX_CLASSES = 100  # hardest classes that are listed
MAX_CONFUSIONS = 30


def accuracy_view(found: AccuracyRecord, note: str = "") -> AccuracyView:
    """The accuracy of each class, hardest first, and the pairs that are confused most often.

    Args:
        found: the record.
        note: a remark for the reader.
    """
    names = found.class_names
    rates, drawn = found.class_accuracies(), len(names) <= MAX_MATRIX_CLASSES
    classes = sorted(
        (
            ClassAccuracy(name=name, num_images=sum(row), accuracy=rate)
            for name, row, rate in zip(names, found.confusion, rates, strict=True)
        ),
        key=lambda of_class: (of_class.accuracy is None, of_class.accuracy),
    )
    wrong = sorted(
        (-count, true, predicted)
        for true, row in enumerate(found.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    )[:MAX_CONFUSIONS]
    return AccuracyView(
        split=found.split,
        accuracy=found.accuracy,
        interval=found.interval,
        num_images=found.num_images,
        num_skipped=found.num_skipped,
        note=note,
        classes=tuple(classes[:MAX_CLASSES]),
        class_names=names if drawn else (),
        matrix=found.confusion if drawn else (),
        confusions=tuple(
            Confusion(
                true=names[true],
                predicted=names[predicted],
                count=-negative,
                share=-negative / sum(found.confusion[true]),
            )
            for negative, true, predicted in wrong
        ),
        num_classes=len(names),
    )
