"""How slow a device was while each row of a table was measured, by the sentinels.

There are two clocks. Networks that are measured again and again follow the drift of whole networks. Blocks that are
measured again and again follow that of blocks alone. Other programs that share a cache or the memory with this one slow
down a network, whose weights come from memory, and not a block that runs alone, whose weights stay in the core's cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from latency_tables.table.rows import BlockRow, BlockSentinelRow, SentinelRow, Subject, TableRow
from latency_tables.table.statistics import smooth

UNSTEADY = 0.1  # the change between two visits of the sentinels beyond which what lies between them is doubtful


class Drift(NamedTuple):
    """For each row: ``factor``, how slow its device was, 1 for its usual self; ``unsteady``, whether it changed.

    ``usual_ms``: the time of each sentinel on the usual self of the device.
    """

    factor: np.ndarray
    unsteady: np.ndarray
    usual_ms: dict[Subject, float]


def drift_of_rows(rows: Sequence[TableRow], times_ms: Sequence[float]) -> Drift:
    """The drift of every row.

    Each sentinel's rounds are compared with its usual time; between sentinels of a device the ratio is interpolated by
    place in the file, which no clock that jumps can disturb. What was measured hot is left out. A table without
    sentinel blocks has one clock, that of its networks.

    Args:
        rows: of a table.
        times_ms: the typical time of each row; of sentinels alone it is used.
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
    """Of a sentinel: the row's place, the device, milliseconds."""

    place: int
    device_index: int
    ms: float


def _rounds(
    rows: Sequence[TableRow], times_ms: Sequence[float], kind: type[SentinelRow | BlockSentinelRow]
) -> dict[Subject, list[_Round]]:
    """The rounds of each sentinel, without hot ones."""
    found: dict[Subject, list[_Round]] = defaultdict(list)
    for place, (row, ms) in enumerate(zip(rows, times_ms, strict=True)):
        if isinstance(row, kind) and not row.hot:
            found[row.subject].append(_Round(place, row.device_index, ms))
    return found


def _usual(rounds: Sequence[_Round]) -> float:
    """The median over the devices of the median of each one's rounds."""
    by_device: dict[int, list[float]] = defaultdict(list)
    for round_ in rounds:
        by_device[round_.device_index].append(round_.ms)
    return float(np.median([np.median(times) for times in by_device.values()]))


def _changes(here: np.ndarray, places: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Whether the sentinels before and after each place of ``here`` differ by more than `UNSTEADY`."""
    if len(places) < 2:
        return np.zeros(len(here), bool)
    after = np.clip(np.searchsorted(places, here), 1, len(places) - 1)
    changes = np.abs(ratios[after] / ratios[after - 1] - 1) > UNSTEADY
    between: np.ndarray = changes & (here > places[0]) & (here < places[-1])
    return between
