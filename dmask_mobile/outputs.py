"""Files that a user names for a result: checked before the work begins, and never written over a foreign file."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import write_atomically

MARKED_BYTES = 4096  # at the beginning of a file, searched for the mark of our files
STANDARD_STREAMS = (1, 2)  # the file descriptors of standard output and standard error


def check_output(path: Path, mark: str, what: str, fix: str = "give another file") -> None:
    """Checks that a result may be written to ``path``: a new file, an empty one, or an earlier file of ours.

    Args:
        path: the file; a symbolic link leads to the file that is written.
        mark: text in the first `MARKED_BYTES` of our files.
        what: our files in words, such as ``a report of dmask-mobile``.
        fix: what to do about a foreign file.

    Raises:
        DmaskError: for a folder, a device, a foreign file, or a folder that cannot be written to.
    """
    if path.is_dir():
        raise DmaskError(f"'{path}' is a folder", "give the path of a file")
    if (path.exists() or path.is_symlink()) and not _is_replaceable(path, mark):
        raise DmaskError(f"'{path}' exists and is not {what}", fix)
    folder = path.resolve().parent
    # Missing folders are created when the file is written.
    folder = next((above for above in (folder, *folder.parents) if above.exists()), folder)
    if not folder.is_dir():
        raise DmaskError(f"'{path}' cannot be written: '{folder}' is not a folder", "give another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DmaskError(f"'{path}' cannot be written: '{folder}' cannot be written to", "check the permissions")


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a device, a pipe or the file that standard output or standard error goes to."""
    try:
        found = path.stat()
    except OSError:
        return False
    return not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or _standard_stream(found) is not None


def write_output(path: Path, text: str) -> None:
    """Writes ``text`` to a stream, or in one step to a file; a symbolic link stays one."""
    if not is_stream(path):
        write_atomically(path.resolve(), text)
        return
    number = _standard_stream(path.stat())
    sys.stdout.flush()
    with open(path if number is None else os.dup(number), "w", encoding="utf-8") as stream:
        stream.write(text)


def _is_replaceable(path: Path, mark: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(MARKED_BYTES)
    return not beginning or mark.encode() in beginning


def _standard_stream(found: os.stat_result) -> int | None:
    """The file descriptor of the standard stream that goes to this file; None if none does."""
    for number in STANDARD_STREAMS:
        try:
            if os.path.samestat(found, os.fstat(number)):
                return number
        except OSError:  # it is closed
            continue
    return None
