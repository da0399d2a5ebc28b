"""The latency table: JSON lines, appended as they are measured, and what they say when taken together.

The first line is the head: what was measured, on what, with what. Each further line is one round of one block or
one whole network with all its raw samples, a sentinel, or a failure. Nothing is ever rewritten, so that a killed
process loses at most the line under way.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import parse_json, read_bytes
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.child import ChildSpec
from latency_tables.table.rows import (
    ROW,
    BlockAt,
    BlockRow,
    FailureRow,
    NetworkRow,
    Row,
    SentinelRow,
    Subject,
    TableHead,
    TableRow,
)
from latency_tables.table.shipped import table_path
from latency_tables.table.statistics import Summary, smooth, summarize

LINE_END = b"\n"
FIRST_BYTES = json.dumps({"format": TableHead.file_format})[:-1].encode()  # of every table that was begun
MAX_LINE_BYTES = 8 * 2**20  # the longest line of ours, a large network's, has some thousands
OLD_NAMES = {**TableHead.old_names, "device_index": "unit"}


class LatencyTable:
    """A table read into memory: what was measured.

    What that predicts is in `latency_tables.prediction.latency_model.LatencyModel`.

    Args:
        head: the first line.
        rows: the other lines.
        source: its file, and what errors call it.
    """

    def __init__(self, head: TableHead, rows: tuple[TableRow, ...], source: str) -> None:
        self.head = head
        self.rows = rows
        self.source = source

    def __fspath__(self) -> str:
        return self.source

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """The table in ``path``, or the one that ships under this name.

        Raises:
            DmaskError: for a missing file, another format or version, a line that is cut off or broken.
        """
        path = table_path(path)
        try:
            content = read_bytes(path)
        except OSError as error:
            raise DmaskError(
                f"cannot read table '{path}': {error}", "make one: dmask profile SPACE -o TABLE"
            ) from error
        first = content[: content.find(LINE_END) + 1]
        if first or not content.startswith(FIRST_BYTES):  # else a head that was cut off
            parse_head(first or content, path)
        if not content.endswith(LINE_END):
            raise DmaskError(
                f"table '{path}': line {content.count(LINE_END) + 1}, the last one, is incomplete",
                "run 'dmask profile' with the same table again: it drops that line and continues",
            )
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> LatencyTable:
        """The table with this content; ``path`` is what errors call it.

        Raises:
            DmaskError: for another format or version, and for a line that is broken.
        """
        lines = io.BytesIO(content)
        head = parse_head(lines.readline(), path)
        rows = tuple(_row(line, path, number) for number, line in enumerate(lines, start=2))
        return cls(head, rows, str(path))

    @cached_property
    def digest(self) -> str:
        """Names the table's content, by the fields' names of version 1: artifacts and runs keep this digest."""
        content = self.head.model_dump_json() + "".join(row.model_dump_json() for row in self.rows)
        for now, then in OLD_NAMES.items():
            content = content.replace(f'"{now}":', f'"{then}":')  # inside a string the quotes would be escaped
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def drift(self) -> np.ndarray:
        """For each row, how slow its device was: 1 is the usual self, 1.1 ten percent slower.

        Each sentinel's rounds are compared with their median over all devices; between sentinels of a device it is
        interpolated by place in the file, which no clock that jumps can disturb. What was measured hot is left out.
        """
        by_child: dict[ChildSpec, list[tuple[int, int, float]]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            if isinstance(row, SentinelRow) and not row.hot:
                by_child[row.child].append((row.device_index, place, float(np.median(row.wall_ms))))
        points: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for found in by_child.values():
            usual = float(np.median([ms for *_, ms in found]))
            for device_index, place, ms in found:
                if len(found) > 1:
                    points[device_index].append((place, ms / usual))
        drift = np.ones(len(self.rows))
        device_indices = np.array([getattr(row, "device_index", 0) for row in self.rows])
        for device_index, of_device in points.items():
            places, ratios = zip(*sorted(of_device), strict=True)
            here = np.flatnonzero(device_indices == device_index)
            drift[here] = np.interp(here, places, smooth(ratios))
        return drift

    @cached_property
    def _summaries(self) -> dict[Subject, Summary]:
        found: dict[Subject, list[tuple[Row, float]]] = defaultdict(list)
        for row, drift in zip(self.rows, self.drift, strict=True):
            if isinstance(row, BlockRow | NetworkRow):
                found[row.subject].append((row, float(drift)))
        return {subject: summarize_rows(rounds) for subject, rounds in found.items()}

    @cached_property
    def blocks(self) -> dict[BlockAt, Summary]:
        """Each measured block with its input size, and its latency."""
        return {subject: summary for subject, summary in self._summaries.items() if not isinstance(subject, ChildSpec)}

    @cached_property
    def networks(self) -> dict[ChildSpec, Summary]:
        """Each measured whole network and its latency."""
        return {subject: summary for subject, summary in self._summaries.items() if isinstance(subject, ChildSpec)}

    @cached_property
    def num_rounds(self) -> dict[Subject, int]:
        """How often each block and network was measured."""
        return dict(Counter(row.subject for row in self.rows if isinstance(row, BlockRow | NetworkRow)))

    @cached_property
    def failures(self) -> dict[Subject, str]:
        """What could not be measured when it was last tried, and why; there may be rounds of it from before."""
        tried = (row for row in self.rows if isinstance(row, BlockRow | NetworkRow | SentinelRow | FailureRow))
        last = {row.subject: row for row in tried}
        return {subject: row.reason for subject, row in last.items() if isinstance(row, FailureRow)}

    @cached_property
    def sentinels(self) -> dict[ChildSpec, Summary]:
        """The networks that show whether the device has changed, and their latency when the table was made."""
        found: dict[ChildSpec, list[tuple[Row, float]]] = defaultdict(list)
        for row in self.rows:
            if isinstance(row, SentinelRow):
                found[row.child].append((row, 1.0))
        return {child: summarize_rows(rounds) for child, rounds in found.items()}

    def noise(self) -> float:
        """The median relative noise of the whole networks between rounds."""
        noises = sorted(summary.noise for summary in self.networks.values())
        return noises[len(noises) // 2] if noises else 0.0


def summarize_rows(rounds: Sequence[tuple[Row, float]]) -> Summary:
    """The summary of rounds, each with its drift; what was measured hot counts where there is nothing else."""
    taken = [(row, drift) for row, drift in rounds if not row.hot] or rounds
    return summarize([row.wall_ms for row, _ in taken], [drift for _, drift in taken])


def parse_head(line: bytes, path: Path) -> TableHead:
    """The head in the first line of the table ``path``.

    Raises:
        DmaskError: when that line is no head of a latency table, or one of another version.
    """
    return TableHead.from_dict(_parse(line, path, 1, "give a table that 'dmask profile' made"), f"table '{path}'")


def _parse(line: bytes, path: Path, number: int, fix: str) -> Any:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"it has {len(line):,} bytes, a line of a table at most {MAX_LINE_BYTES:,}")
        return parse_json(line.decode())
    except ValueError as error:
        raise DmaskError(f"table '{path}': line {number} is not JSON: {error}", fix) from error


def _row(line: bytes, path: Path, number: int) -> TableRow:
    fix = "remove that line or profile again"
    try:
        return ROW.validate_python(_parse(line, path, number, fix))
    except ValidationError as error:
        raise DmaskError(f"table '{path}': line {number}: {describe_validation_error(error)}", fix) from error
