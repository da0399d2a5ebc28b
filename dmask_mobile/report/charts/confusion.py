"""The confusion matrix."""

from __future__ import annotations

import math

from dmask_mobile.report.charts.marks import Chart, Mark, short
from dmask_mobile.report.records import AccuracyView

SIDE = 560  # of the matrix, in pixels
LARGEST_CELL = 44
MAX_LABEL = 14  # characters
LETTER = 7.2  # pixels of a letter


def confusion_chart(found: AccuracyView) -> Chart | None:
    """Images by true class (rows) and predicted class (columns); None if there are too many classes to draw."""
    if not found.matrix:
        return None
    count = len(found.matrix)
    cell = min(LARGEST_CELL, SIDE / count)
    room = round(14 + LETTER * min(MAX_LABEL, max(map(len, found.class_names))))
    marks: list[Mark] = []
    for row, values in enumerate(found.matrix):
        total = sum(values)
        y = room + row * cell
        marks.append(_label(found.class_names[row], room - 8, y + cell / 2 + 4, "tick end"))
        for column, number in enumerate(values):
            if not number:
                continue
            share, x = number / total, room + column * cell
            css = "right" if row == column else "wrong"
            tip = (
                f"{number:,} of {total:,} images of {found.class_names[row]} were predicted as"
                f" {found.class_names[column]} ({share:.1%})"
            )
            size = short(cell - 1)
            square = {"x": short(x), "y": short(y), "width": size, "height": size}
            marks.append(Mark("rect", f"cell {css}", {**square, "fill-opacity": round(_depth(share), 2)}, tip=tip))
    for column, name in enumerate(found.class_names):
        x = room + (column + 0.5) * cell + 4
        label = _label(name, x, room - 8, "tick start")
        turn = {"transform": f"rotate(-90 {short(x):g} {room - 8})"}
        marks.append(label._replace(attributes={**label.attributes, **turn}))
    side = short(room + count * cell)
    marks[:0] = [
        Mark(
            "rect",
            "field",
            dict.fromkeys(("x", "y"), float(room)) | dict.fromkeys(("width", "height"), short(count * cell)),
        )
    ]
    split = "test" if found.split == "test" else "validation"
    description = (
        f"{found.num_images:,} {split} images of {count} classes; rows are true classes, columns are predicted classes;"
        f" {found.accuracy:.1%} are on the diagonal"
    )
    return Chart(f"Confusion matrix, {split} images", description, side, side, tuple(marks))


def _depth(share: float) -> float:
    """The opacity of a cell, chosen so that rare mistakes are still visible."""
    return 0.18 + 0.82 * math.sqrt(share)


def _label(name: str, x: float, y: float, css: str) -> Mark:
    text = name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"
    return Mark("text", css, {"x": short(x), "y": short(y)}, text)
