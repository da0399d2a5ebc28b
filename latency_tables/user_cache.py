"""The folder of this user's caches."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from dmask_mobile.errors import DmaskError


def user_cache() -> Path:
    """The folder, on Linux ``~/.cache/dmask-mobile``; it may not be there yet."""
    return platformdirs.user_cache_path("dmask-mobile")


def unwritable(folder: Path, error: OSError) -> DmaskError:
    """The error for a folder in it that cannot be written to."""
    return DmaskError(
        f"'{folder}' cannot be written to: {error.strerror}",
        "make it writable, or let XDG_CACHE_HOME name a folder that is",
    )
