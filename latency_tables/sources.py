"""Names our own code: what a changed one would make otherwise must not be taken from a cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def source_digest(*patterns: str) -> str:
    """The digest of the files that ``patterns`` match, relative to where our packages lie."""
    root = Path(__file__).parents[1]
    files = [file for pattern in patterns for file in sorted(root.glob(pattern))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
