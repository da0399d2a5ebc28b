"""Computes from the sentinels how slow a device was when each row of a table was measured.

There are two clocks. Sentinel networks, which are measured repeatedly, show the drift of whole networks. Sentinel
blocks show the drift of blocks that run alone. Other programs that use the same cache or memory slow down a network,
whose weights come from memory, but not a block that runs alone, whose weights stay in the core's cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from latency_tables.table.rows import BlockRow, BlockSentinelRow, SentinelRow, Subject, TableRow
from latency_tables.table.statistics import smooth

UNSTEADY = 0.1  # the change between two measurements of the sentinels beyond which the rows between them are doubtful


class Drift(NamedTuple):
    """For each row: ``factor``: how slow its device was, 1 for its usual speed; ``unsteady``: whether this changed.

    ``usual_ms``: the time of each sentinel at the usual speed of the device.
    """

    factor: np.ndarray
    unsteady: np.ndarray
    usual_ms: dict[Subject, float]


def drift_of_rows(rows: Sequence[TableRow], times_ms: Sequence[float]) -> Drift:
    """The drift of every row.

    Each sentinel's rounds are compared with its usual time. Between sentinels of a device, the ratio is interpolated by
    position in the file, so that changes of the system clock have no effect. Rounds on a hot device are left out. A
    table without sentinel blocks has only the clock of its networks.

    Args:
        rows: the rows of a table.
        times_ms: the typical time of each row; only those of sentinels are used.
    """
    drift = Drift(np.ones(len(rows)), np.zeros(len(rows), bool), {})
    has_block_sentinels = any(isinstance(row, BlockSentinelRow) for row in rows)
    of_blocks = np.array([has_block_sentinels and isinstance(row, BlockRow | BlockSentinelRow) for row in rows], bool)
    device_indices = np.array([getattr(row, "device_index", 0) for row in rows])
    for clock, kind in ((~of_blocks, SentinelRow), (of_blocks, BlockSentinelRow)):
        rounds = _rounds(rows, times_ms, kind)
        usual_ms = {subject: _usual(found) for subject, found in rounds.items()}
        drift.usual_ms.update(usual_ms)
        points: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for subject, found in rounds.items():
            for round_ in found if len(found) > 1 else ():
                points[round_.device_index].append((round_.place, round_.ms / usual_ms[subject]))
        for device_index, of_device in points.items():
            here = np.flatnonzero(clock & (device_indices == device_index))
            places, ratios = zip(*sorted(of_device), strict=True)
            smoothed = smooth(ratios)
            drift.factor[here] = np.interp(here, places, smoothed)
            drift.unsteady[here] = _changes(here, np.array(places), smoothed)
    return drift


class _Round(NamedTuple):
    """A round of a sentinel: the position of the row, the device, milliseconds."""

    place: int
    device_index: int
    ms: float


def _rounds(
    rows: Sequence[TableRow], times_ms: Sequence[float], kind: type[SentinelRow | BlockSentinelRow]
) -> dict[Subject, list[_Round]]:
    """The rounds of each sentinel, without rounds on a hot device, or slowed down if there are others."""
    found: dict[Subject, list[_Round]] = defaultdict(list)
    slowed: dict[Subject, list[_Round]] = defaultdict(list)
    for place, (row, ms) in enumerate(zip(rows, times_ms, strict=True)):
        if isinstance(row, kind) and not row.hot:
            (slowed if row.slowed else found)[row.subject].append(_Round(place, row.device_index, ms))
    return {**slowed, **found}


def _usual(rounds: Sequence[_Round]) -> float:
    """The median over the devices of the median of each device's rounds."""
    by_device: dict[int, list[float]] = defaultdict(list)
    for round_ in rounds:
        by_device[round_.device_index].append(round_.ms)
    return float(np.median([np.median(times) for times in by_device.values()]))


def _changes(here: np.ndarray, places: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Whether the sentinels before and after each position in ``here`` differ by more than `UNSTEADY`."""
    if len(places) < 2:
        return np.zeros(len(here), bool)
    after = np.clip(np.searchsorted(places, here), 1, len(places) - 1)
    changes = np.abs(ratios[after] / ratios[after - 1] - 1) > UNSTEADY
    between: np.ndarray = changes & (here > places[0]) & (here < places[-1])
    return between
