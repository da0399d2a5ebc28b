"""A confusion matrix as a picture: with names and counts for few classes, with a list of the worst ones for many."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmask_mobile.cards.class_table import class_rows, confused_pairs, hardest_classes
from dmask_mobile.errors import shown
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.base import temporary_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED = 40  # classes whose names fit beside the matrix
MAX_COUNTED = 20  # classes whose counts fit into the matrix
NAME_LENGTH = 24
LISTED = 12  # classes and mistakes listed as text
SETTINGS = {
    "text.usetex": False,
    "text.parse_math": False,  # names of classes are always plain text
    "svg.fonttype": "none",
    "svg.hashsalt": "dmask-mobile",
    "font.size": 9,
}


def write_pictures(record: AccuracyRecord, folder: Path, stem: str) -> None:
    """Draws the record once and writes ``STEM_confusion.png`` and ``STEM_confusion.svg``."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn for a character that the font lacks
        figure = draw_confusion(record)
        for kind, metadata in (("png", {"Software": "dmask-mobile"}), ("svg", {"Date": None})):
            with temporary_beside(folder / f"{stem}_confusion.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=120, metadata=metadata)


def draw_confusion(record: AccuracyRecord) -> Figure:
    """A figure with a row for each true class and a column for each predicted class, and the accuracies beside it."""
    from matplotlib.figure import Figure

    classes = len(record.class_names)
    named = classes <= MAX_NAMED
    size = 3 + 0.28 * classes if named else 11.0
    figure = Figure(figsize=(size + 4, max(4.0, size)), layout="constrained")
    matrix, beside = figure.subplots(1, 2, width_ratios=(size, 3 if named else 5), sharey=named)
    _draw_matrix(matrix, record, named)
    if named:
        _draw_bars(beside, record)
    else:
        _list_worst(beside, record)
    split, (low, high) = {"test": "test", "val": "validation"}[record.split], record.interval
    figure.suptitle(
        f"{record.num_images:,} {split} images, accuracy {record.accuracy:.2%} (95%: {low:.2%} to {high:.2%})"
    )
    return figure


def _draw_matrix(axes: Axes, record: AccuracyRecord, named: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    counts = np.array(record.confusion)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    colours = colormaps["Blues"].with_extremes(bad="lightgrey")  # a class without images
    # The square root makes a mistake of 1% visible.
    image = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="equal")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(counts) > MAX_COUNTED:
        axes.figure.colorbar(image, ax=axes, label="share of the true class", location="bottom", shrink=0.6)
    if not named:
        return
    places, names = range(len(counts)), [shown(name, NAME_LENGTH) for name in record.class_names]
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    if len(counts) <= MAX_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)


def _draw_bars(axes: Axes, record: AccuracyRecord) -> None:
    rows = list(class_rows(record))
    axes.barh([row.number for row in rows], [row.accuracy or 0 for row in rows], color="tab:blue")
    for row in rows:
        share = "no images" if row.accuracy is None else f"{row.accuracy:.0%} of {row.images:,}"
        axes.text(1.02, row.number, share, va="center", fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy of the class")
    axes.tick_params(labelleft=False)
    axes.spines[["top", "right"]].set_visible(False)


def _list_worst(axes: Axes, record: AccuracyRecord) -> None:
    accuracies = [row.accuracy for row in class_rows(record) if row.accuracy is not None]
    quarters = ", ".join(f"{share:.0%}" for share in np.quantile(accuracies, (0, 0.25, 0.5, 0.75, 1)))
    lines = [
        f"{len(record.class_names):,} classes, {len(accuracies):,} with images",
        "accuracy of a class: minimum, quartiles, maximum",
        quarters,
        "",
        "lowest accuracy",
        *(
            f"{row.accuracy:4.0%} of {row.images:,}  {shown(row.name, NAME_LENGTH)}"
            for row in hardest_classes(record, LISTED)
        ),
        "",
        "most frequent mistakes (images, true class as predicted class)",
        *(
            f"{count:,}  {shown(true, NAME_LENGTH)} as {shown(predicted, NAME_LENGTH)}"
            for true, predicted, count in confused_pairs(record, LISTED)
        ),
    ]
    axes.set_axis_off()
    axes.text(0, 1, "\n".join(lines), va="top", linespacing=1.6, transform=axes.transAxes)
