"""Failures of this machine that do not depend on the model: no disk space, memory or file handles, killed processes."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.temporary import try_to_write

TRIED_BYTES = 2**20  # about the size of the model of a block
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
    "No usable temporary directory",  # the message of Python's tempfile for a full disk
    "MemoryError",
    "std::bad_alloc",
    "Failed to allocate memory",
    "can't allocate memory",
    # The text in tables for a process that was killed by somebody else or by a system without memory:
    "crashed (SIGKILL)",
    "crashed (SIGTERM)",
    "crashed (SIGHUP)",
    "crashed (SIGINT)",
)


def tells_of_shortage(reason: str) -> bool:
    """Whether the reason of a failure in a table shows that the machine was at fault and not the model."""
    return any(sign in reason for sign in SIGNS)


def is_shortage(error: BaseException) -> bool:
    """Whether the machine is at fault for ``error`` or for an error that caused it, because converters wrap errors.

    Libraries in C++ often report only that a file could not be written, so this also tries to write to the temporary
    folder.
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
    """The error for work that must end because of such a failure."""
    return DmaskError(
        f"this machine cannot continue: {reason}",
        "free disk space, memory or file handles; earlier results are kept, and the same command continues",
    )
