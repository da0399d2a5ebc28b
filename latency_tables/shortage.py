"""Failures of this machine, whichever model is at work: no disk space, no memory, no file handles, killed processes."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.temporary import try_to_write

TRIED_BYTES = 2**20  # as large as the model of a block
ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
)
SIGNS = (
    *map(os.strerror, ERRNOS),
    "No usable temporary directory",  # what Python's tempfile makes of a full disk
    "MemoryError",
    "std::bad_alloc",
    "Failed to allocate memory",
    "can't allocate memory",
    # As tables name the end of a process that somebody else, or a system without memory, has killed:
    "crashed (SIGKILL)",
    "crashed (SIGTERM)",
    "crashed (SIGHUP)",
    "crashed (SIGINT)",
)


def tells_of_shortage(reason: str) -> bool:
    """Whether a failure's reason, as tables keep it, says that the machine was at fault and not the model."""
    return any(sign in reason for sign in SIGNS)


def is_shortage(error: BaseException) -> bool:
    """Whether the machine is at fault for ``error``, itself or by what it was raised from; converters wrap errors.

    Libraries in C++ often say no more than that a file could not be written: so the temporary folder is tried as well.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MemoryError) or (isinstance(link, OSError) and link.errno in ERRNOS):
            return True
        link = link.__cause__ or link.__context__
    return isinstance(error, OSError) or tells_of_shortage(str(error)) or not _can_write()


def _can_write() -> bool:
    try:
        return try_to_write(TRIED_BYTES, [Path(tempfile.gettempdir())]) is None
    except OSError:
        return False


def shortage(reason: str) -> DmaskError:
    """The error for work that such a failure ends."""
    return DmaskError(
        f"this machine cannot continue: {reason}",
        "free disk space, memory or file handles; everything up to now is kept, and the same command continues",
    )
