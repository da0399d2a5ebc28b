"""Writes table files: row by row during measurements, or a whole new file in one step."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import locked, read_bytes
from dmask_mobile.records.base import write_atomically
from latency_tables.table.rows import TableHead, TableRow
from latency_tables.table.table import FIRST_BYTES, LINE_END, MAX_LINE_BYTES, LatencyTable, parse_head


class TableWriter:
    """Appends rows to a table file and flushes each one to disk; use it in a ``with`` statement.

    A new file gets the head. An existing file must have the same head, and an incomplete last line is dropped. While it
    is open, no other process can write to the table, through any path. ``table``: the content of the file when it was
    opened. A refused file is not changed.

    Raises:
        DmaskError: if the file is not a latency table, belongs to another device, runtime or setting, contains a broken
            line, or another process is writing to it.
    """

    def __init__(self, path: Path, head: TableHead) -> None:
        self.path = path
        self.head = head
        self.dropped_line = False

    def __enter__(self) -> TableWriter:
        check_appendable(self.path)  # before the lock, which creates a file next to it
        self._real = self.path.resolve()
        self._real.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(self._real, "dmask profile"))
            check_appendable(self.path)
            self._file = stack.enter_context(self._open())
            self._opened = stack.pop_all()
        return self

    def _open(self) -> TextIO:
        """The file, opened at its end, with its head and only complete lines."""
        content = read_bytes(self._real) if self._real.exists() else b""
        whole = content[: content.rfind(LINE_END) + 1]
        self.dropped_line = len(whole) < len(content)
        if not whole:
            self.table = LatencyTable(self.head, (), str(self.path))
            write_atomically(self._real, json.dumps(self.head.to_dict()) + "\n")
            return self._real.open("a", encoding="utf-8")
        self.table = LatencyTable.parse(whole, self.path)
        self.table.head.check_same(self.head, f"table '{self.path}'")
        if json.loads(whole[: whole.find(LINE_END)])["version"] != TableHead.file_version:
            # A file of an older version is converted to this version, because a file contains rows of one version only.
            write_atomically(self._real, _text(self.table.head, self.table.rows))
        elif self.dropped_line:
            os.truncate(self._real, len(whole))
        return self._real.open("a", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(self, *rows: TableRow) -> None:
        """Appends rows."""
        self._file.write("".join(_line(row) + "\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())


def check_appendable(path: Path) -> None:
    """Checks that ``path`` is a latency table, an empty file or absent; changes nothing.

    Raises:
        DmaskError: for a folder, anything else that is not a regular file, or a file with another first line.
    """
    if not path.exists():
        return
    fix = "choose another file with -o; this file was not changed"
    if not stat.S_ISREG(path.stat().st_mode):
        raise DmaskError(f"'{path}' is a folder or a device, not a latency table", fix)
    with path.open("rb") as file:
        first = file.readline(MAX_LINE_BYTES)
    if not first or (first.startswith(FIRST_BYTES) and not first.endswith(LINE_END)):
        return  # empty, or with an incomplete head
    try:
        parse_head(first, path)
    except DmaskError as error:
        raise DmaskError(f"'{path}' is not a latency table that can be written to: {error.problem}", fix) from error


def write_new_table(path: Path, head: TableHead, rows: Iterable[TableRow]) -> None:
    """Writes a whole table in one step.

    Raises:
        DmaskError: if ``path`` exists.
    """
    check_new(path)
    write_atomically(path, _text(head, rows))


def check_new(path: Path) -> None:
    """Checks that nothing is at ``path``.

    Raises:
        DmaskError: if there is something.
    """
    if path.exists() or path.is_symlink():
        raise DmaskError(f"'{path}' exists", "give another file with -o")


def _text(head: TableHead, rows: Iterable[TableRow]) -> str:
    return "".join(f"{line}\n" for line in (json.dumps(head.to_dict()), *map(_line, rows)))


def _line(row: TableRow) -> str:
    return row.model_dump_json(exclude_defaults=True, exclude={"row"})[:-1] + f',"row":"{row.row}"}}'
