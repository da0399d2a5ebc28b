"""What the readers of other projects' tables share: an entry, what is wrong with one, and the text of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dmask_mobile.files import read_bytes
from dmask_mobile.records.artifact import Precision
from latency_tables.table.rows import BlockAt

COMPRESSED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZ": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class BadEntryError(Exception):
    """An entry that is wrong, or that no block of ours corresponds to."""


class Entry(NamedTuple):
    """One block of another project's table; ``ms`` is as the file has it, ``device`` where it names one."""

    located: BlockAt
    ms: Any
    precision: Precision = "fp32"
    device: Any = None


Entries = Iterator[tuple[str, Callable[[], Entry]]]
"""Each entry's name, and what makes it; that raises `BadEntryError`, or what the broken content leads to."""


def foreign_text(path: Path) -> str:
    """The text of a file.

    Raises:
        OSError, DmaskError: when it cannot be read.
        ValueError: when it is compressed, or is no UTF-8.
    """
    content = read_bytes(path)
    for start, name in COMPRESSED.items():
        if content.startswith(start):
            raise ValueError(f"it is compressed ({name}): unpack it first")
    return content.decode("utf-8-sig")
