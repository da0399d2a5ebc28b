"""Names our own code: what a changed one would make otherwise must not be taken from a cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def source_digest(*patterns: str) -> str:
    """The digest of the files that ``patterns`` match, relative to where our packages lie.

    Raises:
        FileNotFoundError: for a pattern that matches nothing: moved files would make every cache stale without a word.
    """
    root = Path(__file__).parents[1]
    files = []
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if not found:
            raise FileNotFoundError(f"no source file matches '{pattern}'")
        files += found
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
