"""Temporary folders that are removed even if a process is killed."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dmask_mobile.records.base import remove_stale_temporaries, temporary_affixes

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a user's quota, the limit on one file
CHUNK = bytes(2**20)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is removed at the end of the ``with`` block.

    The first call in a process also removes the folders of processes that were killed before they could remove them.
    """
    place = Path(tempfile.gettempdir())
    _remove_stale(place)
    prefix, suffix = temporary_affixes(Path("dmask"))
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=place) as folder:
        yield Path(folder)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """A context in which Python's `tempfile` uses ``folder``, because some libraries leave temporary files."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new empty folder that replaces ``path`` in one step if the ``with`` block ends without an error.

    Its files and folders get the permissions that the user's umask gives to new ones.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = temporary_affixes(path)
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=path.parent) as temporary:
        fresh, old = Path(temporary) / path.name, Path(temporary) / "old"
        fresh.mkdir()
        yield fresh
        allowed = fresh.stat().st_mode & 0o777
        for part in fresh.rglob("*"):
            part.chmod(allowed if part.is_dir() else allowed & 0o666)
            if part.is_file():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
        if not path.exists():
            fresh.rename(path)
            return
        path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            old.rename(path)
            raise


def full_disk_of(error: BaseException) -> OSError | None:
    """The error of a full disk, quota or file size limit that caused ``error``; None if there is none."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in FULL:
            return link
        link = link.__cause__ or link.__context__
    return None


def try_to_write(size: int, folders: Iterable[Path]) -> OSError | None:
    """The error of writing ``size`` bytes into one of these folders; None if this works in all of them.

    Converters in C++ and other programs do not say why they fail, so this checks whether a full disk is the reason.
    """
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                for _ in range(-(-size // len(CHUNK))):
                    file.write(CHUNK)
        except OSError as error:
            return error if error.errno in FULL else None
    return None


@functools.cache
def _remove_stale(place: Path) -> None:
    remove_stale_temporaries(place)
