"""The latency table: JSON lines that are appended during measurements, and the results computed from them.

The first line is the head: the device, the runtime and the settings. Each further line is one round of a block or a
whole network with all its raw samples, a sentinel, or a failure. Nothing is rewritten, so that a killed process loses
at most the current line.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import parse_json, read_bytes
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.child import ChildSpec
from latency_tables.table.drift import Drift, drift_of_rows
from latency_tables.table.rows import (
    ROW,
    BlockAt,
    BlockRow,
    BlockSentinelRow,
    FailureRow,
    MetricRow,
    NetworkRow,
    NoMetricRow,
    PriorRow,
    RecheckRow,
    Row,
    SentinelRow,
    Subject,
    TableHead,
    TableRow,
)
from latency_tables.table.shipped import table_path
from latency_tables.table.statistics import (
    QUANTILES,
    RoundTime,
    Summary,
    best_quantile,
    round_time,
    summarize,
    usual_share,
)

LINE_END = b"\n"
FIRST_BYTES = json.dumps({"format": TableHead.file_format})[:-1].encode()  # at the beginning of every table
NUM_REFERENCES = 3
MAX_LINE_BYTES = 8 * 2**20  # our longest line, of a large network, has some thousands
NEW_FIELDS = (',"slowed":false', ',"loops":1')  # missing in rows of older versions
OLD_NAMES = {**TableHead.old_names, "device_index": "unit"}


class Samples(Protocol):
    """One round: the milliseconds of single runs, as wall time and CPU time of the thread."""

    @property
    def wall_ms(self) -> tuple[float, ...]:
        """The wall time of each run."""
        ...

    @property
    def cpu_ms(self) -> tuple[float, ...]:
        """The CPU time of each run; empty if unknown."""
        ...

    @property
    def slowed(self) -> bool:
        """Whether something else slowed down the core during almost every run."""
        ...


class LatencyTable:
    """A table read into memory: the measurements.

    Predictions from it are made by `latency_tables.prediction.latency_model.LatencyModel`.

    Args:
        head: the first line.
        rows: the other lines.
        source: its file, which is its name in error messages.
    """

    def __init__(self, head: TableHead, rows: tuple[TableRow, ...], source: str) -> None:
        self.head = head
        self.rows = rows
        self.source = source

    def __fspath__(self) -> str:
        return self.source

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """The table in ``path``, or the shipped table of this name.

        Raises:
            DmaskError: for a missing file, another format or version, or an incomplete or broken line.
        """
        path = table_path(path)
        try:
            content = read_bytes(path)
        except OSError as error:
            raise DmaskError(
                f"cannot read table '{path}': {error}", "make one: dmask profile SPACE -o TABLE"
            ) from error
        first = content[: content.find(LINE_END) + 1]
        if first or not content.startswith(FIRST_BYTES):  # otherwise an incomplete head
            parse_head(first or content, path)
        if not content.endswith(LINE_END):
            raise DmaskError(
                f"table '{path}': line {content.count(LINE_END) + 1}, the last one, is incomplete",
                "run 'dmask profile' with the same table again: it drops that line and continues",
            )
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> LatencyTable:
        """The table with this content; ``path`` is its name in error messages.

        Raises:
            DmaskError: for another format or version, or a broken line.
        """
        lines = io.BytesIO(content)
        head = parse_head(lines.readline(), path)
        rows = tuple(_row(line, path, number) for number, line in enumerate(lines, start=2))
        return cls(head, rows, str(path))

    @cached_property
    def digest(self) -> str:
        """A digest of the table's content with the field names of version 1, which artifacts and runs store."""
        head = self.head
        added = {name for name in head.added_fields if getattr(head, name) == type(head).model_fields[name].default}
        content = head.model_dump_json(exclude=added) + "".join(row.model_dump_json() for row in self.rows)
        for now, then in OLD_NAMES.items():
            content = content.replace(f'"{now}":', f'"{then}":')  # inside a string the quotes would be escaped
        for field in NEW_FIELDS:
            content = content.replace(field, "")
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def usual_share(self) -> float | None:
        """See `latency_tables.table.statistics.usual_share`."""
        return usual_share((row.wall_ms, row.cpu_ms) for row in self.rows if isinstance(row, Row))

    @cached_property
    def quantile(self) -> float:
        """The quantile of a round's runs that is used: the one that repeats best from round to round on this device."""
        rounds: dict[Subject, list[Row]] = defaultdict(list)
        for row in self.rows:
            if isinstance(row, NetworkRow | SentinelRow | BlockSentinelRow):
                rounds[row.subject].append(row)
        return best_quantile(
            [
                {q: self._time(second, q).ms / self._time(first, q).ms for q in QUANTILES}
                for of_subject in rounds.values()
                for first, second in pairwise(of_subject)
                if first.device_index == second.device_index
            ]
        )

    def round_time(self, samples: Samples) -> RoundTime:
        """The typical milliseconds of one round, and whether other programs interrupted it."""
        return self._time(samples, self.quantile)

    def rounds_ms(self, rounds: Iterable[Samples]) -> list[float]:
        """The typical milliseconds of each round; of interrupted rounds only if there are no others."""
        times = [self.round_time(samples) for samples in rounds]
        return [time.ms for time in times if not time.interrupted] or [time.ms for time in times]

    def _time(self, samples: Samples, quantile: float) -> RoundTime:
        time = round_time(samples.wall_ms, samples.cpu_ms, self.usual_share, quantile)
        return time._replace(interrupted=time.interrupted or samples.slowed)

    @cached_property
    def _times(self) -> list[RoundTime]:
        """The time of each row; zero for rows that are not rounds."""
        nothing = RoundTime(0.0, interrupted=False)
        return [self.round_time(row) if isinstance(row, Row) else nothing for row in self.rows]

    @cached_property
    def _drift(self) -> Drift:
        return drift_of_rows(self.rows, [time.ms for time in self._times])

    @property
    def drift(self) -> np.ndarray:
        """For each row, how slow its device was: 1 is the usual speed, 1.1 is ten percent slower."""
        return self._drift.factor

    @cached_property
    def _summaries(self) -> dict[Subject, Summary]:
        return self._summaries_of(BlockRow | NetworkRow, self.drift)

    def _summaries_of(self, kind: type[Row] | UnionType, drift: np.ndarray) -> dict[Subject, Summary]:
        """The summary of each subject with rows of this kind.

        Rounds that were measured hot, interrupted or while the speed of the device changed are used only if there are
        no others.
        """
        found: dict[Subject, list[tuple[float, float, bool]]] = defaultdict(list)
        for row, time, factor, unsteady in zip(self.rows, self._times, drift, self._drift.unsteady, strict=True):
            if isinstance(row, kind):
                doubtful = row.hot or time.interrupted or bool(unsteady)
                found[row.subject].append((time.ms, float(factor), doubtful))
        summaries = {}
        for subject, rounds in found.items():
            taken = [each for each in rounds if not each[2]] or rounds
            summary = summarize([ms for ms, *_ in taken], [factor for _, factor, _ in taken])
            summaries[subject] = summary._replace(doubtful=taken is rounds and taken[0][2])
        return summaries

    @cached_property
    def blocks(self) -> dict[BlockAt, Summary]:
        """Each measured block with its input size, and its latency."""
        return {subject: summary for subject, summary in self._summaries.items() if not isinstance(subject, ChildSpec)}

    @cached_property
    def networks(self) -> dict[ChildSpec, Summary]:
        """Each measured whole network and its latency."""
        return {subject: summary for subject, summary in self._summaries.items() if isinstance(subject, ChildSpec)}

    @cached_property
    def prior(self) -> dict[BlockAt, float]:
        """The milliseconds of blocks on another device or runtime, on which predictions are based; empty for none."""
        return {(row.block, row.in_size): row.ms for row in self.rows if isinstance(row, PriorRow)}

    @cached_property
    def metrics(self) -> dict[str, dict[ChildSpec, float]]:
        """The measured whole networks of each metric, with the median of their values in the metric's unit."""
        found: dict[str, dict[ChildSpec, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            if isinstance(row, MetricRow):
                found[row.metric][row.child].append(row.value)
        return {
            metric: {child: float(np.median(values)) for child, values in of_metric.items()}
            for metric, of_metric in found.items()
        }

    @cached_property
    def not_reported(self) -> dict[str, str]:
        """The metrics that the device does not report, with reasons."""
        rows = (row for row in self.rows if isinstance(row, NoMetricRow))
        return {row.metric: row.reason for row in rows if row.metric not in self.metrics}

    @cached_property
    def num_rounds(self) -> dict[Subject, int]:
        """How often each block and network was measured."""
        return dict(Counter(row.subject for row in self.rows if isinstance(row, BlockRow | NetworkRow)))

    @cached_property
    def failures(self) -> dict[Subject, str]:
        """The subjects whose last measurement failed, with reasons; there may be earlier rounds of them."""
        tried = (row for row in self.rows if isinstance(row, BlockRow | NetworkRow | SentinelRow | FailureRow))
        last = {row.subject: row for row in tried}
        return {subject: row.reason for subject, row in last.items() if isinstance(row, FailureRow)}

    @cached_property
    def sentinels(self) -> dict[ChildSpec, Summary]:
        """The networks that show whether the device has changed, and their latency when the table was made."""
        found = self._summaries_of(SentinelRow, np.ones(len(self.rows)))
        usual_ms = self._drift.usual_ms
        return {
            subject: summary._replace(typical_ms=usual_ms.get(subject, summary.typical_ms))
            for subject, summary in found.items()
            if isinstance(subject, ChildSpec)
        }

    @cached_property
    def block_sentinels(self) -> tuple[BlockAt, ...]:
        """The blocks that show the drift of blocks measured alone."""
        found = dict.fromkeys(row.subject for row in self.rows if isinstance(row, BlockSentinelRow))
        return tuple(subject for subject in found if not isinstance(subject, ChildSpec))

    @cached_property
    def references(self) -> dict[ChildSpec, Summary]:
        """The networks that show drift, with their original latency: the sentinels, or else the first networks."""
        return self.sentinels or dict(islice(self.networks.items(), NUM_REFERENCES))

    @cached_property
    def scale(self) -> float:
        """How slow the device was at its last check, relative to when the table was made; 1 if it was not checked."""
        rows = [row for row in self.rows if isinstance(row, RecheckRow)]
        last = max((row.check for row in rows), default=0)
        found: dict[ChildSpec, list[RecheckRow]] = defaultdict(list)
        for row in rows:
            if row.check == last and row.child in self.references:
                found[row.child].append(row)
        return self._ratio_to_references({child: self.rounds_ms(of_child) for child, of_child in found.items()})

    def drift_of(self, taken: Mapping[ChildSpec, Sequence[float]]) -> float:
        """How much slower a device is now than the table says: the median of now / then - 1.

        Args:
            taken: the times of the measured rounds of each of `references`, in milliseconds.
        """
        return self._ratio_to_references(taken) / self.scale - 1

    def _ratio_to_references(self, taken: Mapping[ChildSpec, Sequence[float]]) -> float:
        """The median of now / then; 1 if there is none."""
        ratios = [summarize(ms).typical_ms / self.references[child].typical_ms for child, ms in taken.items()]
        return float(np.median(ratios)) if ratios else 1.0

    @cached_property
    def disturbed_share(self) -> float:
        """The share of the rounds during which other programs or virtual machines used the core all the time."""
        rounds = [time.interrupted for row, time in zip(self.rows, self._times, strict=True) if isinstance(row, Row)]
        return float(np.mean(rounds)) if rounds else 0.0

    def noise(self) -> float:
        """The median relative noise of the whole networks between rounds."""
        noises = sorted(summary.noise for summary in self.networks.values())
        return noises[len(noises) // 2] if noises else 0.0


def parse_head(line: bytes, path: Path) -> TableHead:
    """The head in the first line of the table ``path``.

    Raises:
        DmaskError: if that line is not the head of a latency table, or has another version.
    """
    return TableHead.from_dict(_parse(line, path, 1, "give a table made by 'dmask profile'"), f"table '{path}'")


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
