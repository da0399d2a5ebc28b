"""Names our own code: what a changed one would make otherwise must not be taken from a cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def source_digest(*places: str) -> str:
    """The digest of Python files.

    Args:
        places: files, and folders with their files, relative to where our packages lie.
    """
    root = Path(__file__).parents[1]
    files = [file for place in places for file in ([root / place] if place.endswith(".py") else _in(root / place))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.py"))
