"""Digests of our own code, for cache keys: results of changed code must not be taken from a cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def source_digest(*patterns: str) -> str:
    """The digest of the files that match ``patterns``, relative to the folder of our packages.

    Raises:
        FileNotFoundError: for a pattern that matches nothing, because moved files would silently make caches stale.
    """
    root = Path(__file__).parents[1]
    files = []
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if not found:
            raise FileNotFoundError(f"no source file matches '{pattern}'")
        files += found
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
