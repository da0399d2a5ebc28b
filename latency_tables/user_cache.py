"""The folder of this user's caches."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from dmask_mobile.errors import DmaskError


def user_cache() -> Path:
    """The folder of the cache, on Linux ``~/.cache/dmask-mobile``; it may not exist yet."""
    return platformdirs.user_cache_path("dmask-mobile")


def unwritable(folder: Path, error: OSError) -> DmaskError:
    """The error for a folder in the cache that cannot be written to."""
    return DmaskError(
        f"'{folder}' cannot be written to: {error.strerror}",
        "make it writable, or set XDG_CACHE_HOME to a writable folder",
    )
