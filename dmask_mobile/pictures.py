"""Writes pictures as PNG or SVG by suffix: the same bytes for the same picture, and never over a foreign file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.errors import DmaskError
from dmask_mobile.outputs import check_output
from dmask_mobile.records.base import temporary_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_BY = "dmask-mobile"
MARKS = {".png": f"tEXtSoftware\0{DRAWN_BY}", ".svg": f"<dc:title>{DRAWN_BY}</dc:title>"}
"""Marks a picture as ours, in a chunk of a PNG file or the metadata of an SVG file."""
DOTS_PER_INCH = 110


def check_picture(path: Path) -> None:
    """Checks that a picture may be written to ``path``: a new PNG or SVG file, or an earlier picture.

    Raises:
        DmaskError: for another suffix, and in the same cases as `check_output`.
    """
    if path.suffix.lower() not in MARKS:
        raise DmaskError(f"a picture must be a PNG or SVG file, got '{path}'", "give FILE.png or FILE.svg")
    check_output(path, MARKS[path.suffix.lower()], "a picture that dmask-mobile drew")


def save_picture(figure: Figure, path: Path) -> None:
    """Writes the picture in one step: a reader sees the old or the new file.

    Raises:
        DmaskError: in the same cases as `check_picture`.
    """
    import matplotlib

    check_picture(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    is_svg = path.suffix.lower() == ".svg"
    metadata = {"Creator": DRAWN_BY, "Date": None} if is_svg else {"Software": DRAWN_BY}
    settings = {"svg.hashsalt": DRAWN_BY, "text.usetex": False, "text.parse_math": False}  # names are plain text
    with matplotlib.rc_context(settings), temporary_beside(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="svg" if is_svg else "png", metadata=metadata)
