"""Folders in the system's temporary folder that do not stay behind, even where a process is killed."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmask_mobile.records.base import remove_stale_temporaries, temporary_affixes


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, removed when the block ends.

    The first call in a process also removes the folders of processes that were killed before they could do that.
    """
    place = Path(tempfile.gettempdir())
    _remove_stale(place)
    prefix, suffix = temporary_affixes(Path("dmask"))
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=place) as folder:
        yield Path(folder)


@functools.cache
def _remove_stale(place: Path) -> None:
    remove_stale_temporaries(place)
