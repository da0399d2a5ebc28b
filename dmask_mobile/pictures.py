"""Pictures as files: PNG or SVG by the ending, the same bytes for the same picture, never over a file of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import temporary_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_BY = "dmask-mobile"
MARKS = {".png": f"tEXtSoftware\0{DRAWN_BY}", ".svg": f"<dc:title>{DRAWN_BY}</dc:title>"}
"""What says who made a picture: a chunk of a PNG file, the metadata of an SVG file."""
DOTS_PER_INCH = 110


def check_picture(path: Path) -> None:
    """Checks that a picture may be written to ``path``: PNG or SVG, new, or one that was drawn here before.

    Raises:
        DmaskError: for another ending, and for a file that something else made.
    """
    if path.suffix.lower() not in MARKS:
        raise DmaskError(f"pictures are PNG or SVG files, got '{path}'", "give FILE.png or FILE.svg")
    if path.exists():
        ours = False
        if path.is_file():
            with path.open("rb") as file:
                ours = MARKS[path.suffix.lower()].encode() in file.read(4096)
        if not ours:
            raise DmaskError(f"'{path}' exists and is not a picture that dmask-mobile drew", "give another file")


def save_picture(figure: Figure, path: Path) -> None:
    """Writes the picture; a reader sees the old one or the new one.

    Raises:
        DmaskError: as `check_picture`.
    """
    import matplotlib

    check_picture(path)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    is_svg = path.suffix.lower() == ".svg"
    metadata = {"Creator": DRAWN_BY, "Date": None} if is_svg else {"Software": DRAWN_BY}
    settings = {"svg.hashsalt": DRAWN_BY, "text.usetex": False, "text.parse_math": False}  # names are text
    with matplotlib.rc_context(settings), temporary_beside(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="svg" if is_svg else "png", metadata=metadata)
