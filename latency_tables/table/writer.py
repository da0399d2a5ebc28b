"""Appending to a table file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dmask_mobile.files import locked
from dmask_mobile.records.base import write_atomically
from latency_tables.table.rows import TableHead, TableRow
from latency_tables.table.table import LatencyTable


class TableWriter:
    """Appends rows to a table file, each flushed to disk before the next is measured; use it in a ``with``.

    A new file gets the head; an old one must have the same, and a line that was cut off is dropped. While it is
    open, nobody else writes to the table. ``table`` is what the file held when it was opened.

    Raises:
        DmaskError: when the file belongs to another device, runtime or setting, or somebody else is writing to it.
    """

    def __init__(self, path: Path, head: TableHead) -> None:
        self.path = path
        self.head = head
        self.dropped_line = False
        self._lock = locked(path, "dmask profile")

    def __enter__(self) -> TableWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.__enter__()
        try:
            self.dropped_line = self.path.exists() and _drop_cut_line(self.path)
            if self.path.exists() and self.path.stat().st_size:
                self.table = LatencyTable.read(self.path)
                self.table.head.check_same(self.head, f"table '{self.path}'")
                if _version(self.path) != TableHead.file_version:
                    self._write_again()
                self._file = self.path.open("a", encoding="utf-8")
            else:
                self.table = LatencyTable(self.head, (), str(self.path))
                self._file = self.path.open("w", encoding="utf-8")
                self._append(json.dumps(self.head.to_dict()))
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.__exit__(None, None, None)

    def add(self, row: TableRow) -> None:
        """Appends one row."""
        self._append(_line(row))

    def _write_again(self) -> None:
        """Replaces an older version's file by the same table in this version: one file holds rows of one version."""
        lines = [json.dumps(self.table.head.to_dict()), *map(_line, self.table.rows)]
        write_atomically(self.path, "".join(f"{line}\n" for line in lines))

    def _append(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _version(path: Path) -> int:
    with path.open(encoding="utf-8") as file:
        return int(json.loads(file.readline())["version"])


def _line(row: TableRow) -> str:
    return row.model_dump_json(exclude_defaults=True, exclude={"row"})[:-1] + f',"row":"{row.row}"}}'


def _drop_cut_line(path: Path) -> bool:
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return False
    with path.open("r+b") as file:
        file.truncate(content.rfind(b"\n") + 1)
    return True
