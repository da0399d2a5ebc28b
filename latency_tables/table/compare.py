"""Merges and compares tables; they must have the same device, runtime and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dmask_mobile.errors import DmaskError
from latency_tables.table.rows import FailureRow, Subject, describe_subject
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import write_new_table


def merge(tables: Sequence[LatencyTable], path: Path) -> LatencyTable:
    """Writes all rows of ``tables`` to a new file, each once; failures first, so that measurements override them.

    Raises:
        DmaskError: if the tables differ in device, runtime or setting, or the file exists.
    """
    first = tables[0]
    for other in tables[1:]:
        first.head.check_same(other.head, f"'{first.source}' and '{other.source}'")
        if first.head.prior != other.head.prior:
            raise DmaskError(
                f"'{first.source}' and '{other.source}' began with different tables (--like)",
                "merge tables of one prior",
            )
    rows = dict.fromkeys(row for table in tables for row in table.rows)
    write_new_table(path, first.head, sorted(rows, key=lambda row: not isinstance(row, FailureRow)))
    return LatencyTable.read(path)


class Difference(NamedTuple):
    """One block or network in two tables."""

    subject: str
    first_ms: float
    second_ms: float

    @property
    def change(self) -> float:
        """Second / first - 1."""
        return self.second_ms / self.first_ms - 1


class Comparison(NamedTuple):
    """Two tables: their common entries by falling change, and the number of entries in only one of them."""

    common: tuple[Difference, ...]
    only_first: int
    only_second: int

    @property
    def median_change(self) -> float:
        """The median change of the common entries."""
        return float(np.median([difference.change for difference in self.common])) if self.common else 0.0


def diff(first: LatencyTable, second: LatencyTable) -> Comparison:
    """The changes from one table to the other.

    Raises:
        DmaskError: if they differ in device, runtime or setting, or have nothing in common.
    """
    first.head.check_same(second.head, f"'{first.source}' and '{second.source}'")
    of_first, of_second = _latencies(first), _latencies(second)
    common = [
        Difference(describe_subject(subject), ms, of_second[subject])
        for subject, ms in of_first.items()
        if subject in of_second
    ]
    if not common:
        raise DmaskError(
            f"'{first.source}' and '{second.source}' have no block or network in common", "compare tables of one space"
        )
    common.sort(key=lambda difference: -abs(difference.change))
    return Comparison(tuple(common), len(of_first) - len(common), len(of_second) - len(common))


def _latencies(table: LatencyTable) -> dict[Subject, float]:
    found: dict[Subject, float] = {block: summary.typical_ms for block, summary in table.blocks.items()}
    return found | {child: summary.typical_ms for child, summary in table.networks.items()}
