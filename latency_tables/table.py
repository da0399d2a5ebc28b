"""The latency table: JSON lines, appended as they are measured.

The first line is the head: what was measured, on what, with what. Each further line is one round of one block or
one whole network with all its raw samples. Nothing is ever rewritten, so that a killed process loses at most the
line under way.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError

from dmask_mobile.costs.model import Correction
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import FileRecord, Record, describe_validation_error
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from latency_tables.statistics import LineFit, Summary, fit_line, summarize

MIN_NETWORKS = 3  # at one resolution, for its line


class TableHead(FileRecord):
    """What all rows of a table have in common; tables agree only where every field but ``created`` does."""

    file_format: ClassVar[str] = "dmask-latency-table"

    device: str
    system: str
    cores: int
    runtime: str
    runtime_version: str
    precision: Literal["fp32"] = "fp32"
    delegate: Literal["cpu"] = "cpu"
    threads: int
    batch: int = 1
    created: str

    def check_same(self, other: TableHead, source: str) -> None:
        """Compares everything that a measurement depends on.

        Raises:
            DmaskError: naming the first field that differs and both values.
        """
        for field in type(self).model_fields:
            ours, theirs = getattr(self, field), getattr(other, field)
            if field != "created" and ours != theirs:
                raise DmaskError(
                    f"{source}: {field} of the table is '{ours}', here it is '{theirs}'",
                    "use a table of this device, or profile this one: dmask profile SPACE -o TABLE",
                )


class Row(Record):
    """One round of samples in milliseconds: wall time, and CPU time of the thread that ran the model."""

    round: int = Field(ge=0)
    at: str
    wall_ms: tuple[float, ...] = Field(min_length=1)
    cpu_ms: tuple[float, ...]


class BlockRow(Row):
    """A round of one block."""

    row: Literal["block"] = "block"
    block: BlockSpec
    in_size: int


class NetworkRow(Row):
    """A round of one whole network."""

    row: Literal["network"] = "network"
    child: ChildSpec


TableRow = Annotated[BlockRow | NetworkRow, Field(discriminator="row")]
_ROW: TypeAdapter[BlockRow | NetworkRow] = TypeAdapter(TableRow)

BlockKey = tuple[BlockSpec, int]


class LatencyTable:
    """A table read into memory; satisfies `dmask_mobile.costs.latency.BlockLatencies`.

    Args:
        head: the first line.
        rows: the other lines.
        source: what errors call it.
    """

    def __init__(self, head: TableHead, rows: tuple[BlockRow | NetworkRow, ...], source: str) -> None:
        self.head = head
        self.rows = rows
        self.source = source

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """The table in ``path``.

        Raises:
            DmaskError: for a missing file, another format or version, a line that is cut off or broken.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DmaskError(
                f"cannot read table '{path}': {error}", "make one: dmask profile SPACE -o TABLE"
            ) from error
        lines = text.split("\n")
        if lines[-1]:
            raise DmaskError(
                f"table '{path}': line {len(lines)}, the last one, is cut off",
                "run 'dmask profile' with the same table again: it drops that line and goes on",
            )
        head = TableHead.from_dict(_parse(lines[0], path, 1), f"table '{path}'")
        rows = tuple(_row(_parse(line, path, n), path, n) for n, line in enumerate(lines[1:-1], start=2))
        return cls(head, rows, str(path))

    @cached_property
    def blocks(self) -> dict[BlockKey, Summary]:
        """Each measured block with its input size, and its latency."""
        rounds: dict[BlockKey, list[tuple[float, ...]]] = defaultdict(list)
        for row in self.rows:
            if isinstance(row, BlockRow):
                rounds[row.block, row.in_size].append(row.wall_ms)
        return {key: summarize(samples) for key, samples in rounds.items()}

    @cached_property
    def networks(self) -> dict[ChildSpec, Summary]:
        """Each measured whole network and its latency."""
        rounds: dict[ChildSpec, list[tuple[float, ...]]] = defaultdict(list)
        for row in self.rows:
            if isinstance(row, NetworkRow):
                rounds[row.child].append(row.wall_ms)
        return {child: summarize(samples) for child, samples in rounds.items()}

    def block_ms(self, block: BlockSpec, in_size: int) -> float:
        """Milliseconds of one block.

        Raises:
            DmaskError: when it was not measured.
        """
        if (block, in_size) not in self.blocks:
            raise DmaskError(
                f"no row for {block.describe()} at {in_size}x{in_size} in '{self.source}'",
                f"measure the blocks of your space: dmask profile SPACE --classes N -o {self.source}",
            )
        return self.blocks[block, in_size].typical_ms

    def sum_ms(self, child: ChildSpec) -> float:
        """The uncorrected sum over a network's blocks."""
        return sum(self.block_ms(block, size) for block, size in child.located_blocks() if block.kind != "skip")

    @cached_property
    def _lines(self) -> dict[int, LineFit]:
        resolutions = {child.resolution for child in self.networks}
        fits = {}
        for resolution in sorted(resolutions):
            of_size = [(child, summary) for child, summary in self.networks.items() if child.resolution == resolution]
            if len(of_size) >= MIN_NETWORKS:
                fits[resolution] = fit_line(
                    [self.sum_ms(child) for child, _ in of_size], [summary.typical_ms for _, summary in of_size]
                )
        return fits

    def correction(self, resolution: int) -> Correction:
        """The line from sums of blocks to whole networks at ``resolution`` pixels.

        Raises:
            DmaskError: when too few whole networks were measured at that resolution.
        """
        if resolution not in self._lines:
            raise DmaskError(
                f"'{self.source}' holds fewer than {MIN_NETWORKS} whole networks at {resolution} px",
                f"finish it: dmask profile SPACE -o {self.source}",
            )
        return self._lines[resolution].correction

    def relative_spread(self) -> float:
        """Relative standard deviation of whole networks around their lines."""
        return max((line.spread for line in self._lines.values()), default=0.0)

    def noise(self) -> float:
        """The median relative noise of the whole networks between rounds."""
        noises = sorted(summary.noise for summary in self.networks.values())
        return noises[len(noises) // 2] if noises else 0.0


def _parse(line: str, path: Path, number: int) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DmaskError(
            f"table '{path}': line {number} is not JSON: {error}", "remove that line or profile again"
        ) from error


def _row(content: object, path: Path, number: int) -> BlockRow | NetworkRow:
    try:
        return _ROW.validate_python(content)
    except ValidationError as error:
        raise DmaskError(
            f"table '{path}': line {number}: {describe_validation_error(error)}", "remove that line or profile again"
        ) from error


class TableWriter:
    """Appends rows to a table file, each flushed to disk before the next is measured.

    A new file gets the head; an old one must have the same, and a line that was cut off is dropped.

    Raises:
        DmaskError: when the file belongs to another device, runtime or setting.
    """

    def __init__(self, path: Path, head: TableHead) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dropped_line = path.exists() and _drop_cut_line(path)
        if path.exists() and path.stat().st_size:
            LatencyTable.read(path).head.check_same(head, f"table '{path}'")
            self._file = path.open("a", encoding="utf-8")
        else:
            self._file = path.open("w", encoding="utf-8")
            self._append(json.dumps(head.to_dict()))

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: BlockRow | NetworkRow) -> None:
        """Appends one row."""
        self._append(row.model_dump_json())

    def _append(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _drop_cut_line(path: Path) -> bool:
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return False
    with path.open("r+b") as file:
        file.truncate(content.rfind(b"\n") + 1)
    return True
