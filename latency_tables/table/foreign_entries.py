"""The common parts of readers of other projects' tables: an entry, the error of an entry, the text of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dmask_mobile.files import read_bytes
from dmask_mobile.records.artifact import Precision
from latency_tables.table.rows import BlockAt

COMPRESSED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZ": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class BadEntryError(Exception):
    """An entry that is wrong, or that corresponds to none of our blocks."""


class Entry(NamedTuple):
    """One block of another project's table; ``ms`` as in the file; ``device`` if the file names one."""

    located: BlockAt
    ms: Any
    precision: Precision = "fp32"
    device: Any = None


Entries = Iterator[tuple[str, Callable[[], Entry]]]
"""The name of each entry and a function that makes it; it raises `BadEntryError` or another error for bad content."""


def foreign_text(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError, DmaskError: if it cannot be read.
        ValueError: if it is compressed or is not UTF-8.
    """
    content = read_bytes(path)
    for start, name in COMPRESSED.items():
        if content.startswith(start):
            raise ValueError(f"it is compressed ({name}): unpack it first")
    return content.decode("utf-8-sig")
