"""From sums of blocks to whole networks: what isolated blocks miss, learned from networks measured on the device.

``latency = a_r + b_r * sum over blocks of (t_block - o)``, one rising line for each resolution r. ``o`` is what a block
measured alone costs in being called at all. All of it is fitted to *relative* errors; the line of a resolution is
drawn towards the one of all resolutions, the more so the fewer networks it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.model import Correction

PRIOR_NETWORKS = 2.0  # so many networks the common line counts for in the line of one resolution
MIN_NETWORKS = 3  # in all
MIN_NETWORKS_FOR_OVERHEAD = 12


MIN_SHARE = 0.2  # of its own latency: what a block counts for at least once its overhead is taken off


def without_overhead(block_ms: float, overhead_ms: float) -> float:
    """What a block that took ``block_ms`` alone adds to a network."""
    return max(MIN_SHARE * block_ms, block_ms - overhead_ms)


class WholeNetwork(NamedTuple):
    """A measured network and what each of its blocks takes alone."""

    resolution: int
    blocks_ms: tuple[float, ...]
    measured_ms: float

    @property
    def sum_ms(self) -> float:
        """Of the blocks by themselves."""
        return sum(self.blocks_ms)

    @property
    def num_blocks(self) -> int:
        """How many of them there are."""
        return len(self.blocks_ms)

    def without_overhead(self, overhead_ms: float) -> float:
        """The sum of what the blocks add to a network."""
        return sum(without_overhead(block_ms, overhead_ms) for block_ms in self.blocks_ms)


class Corrections(NamedTuple):
    """The overhead of a block and the lines, with the relative error that is left on networks not used for them.

    ``spread`` is their standard deviation, ``error`` their mean absolute value; both by leaving one network out.
    """

    overhead_ms: float
    common: Correction
    lines: dict[int, Correction]
    spread: float
    error: float

    def at(self, resolution: int) -> Correction:
        """The line of a resolution; the common one where no network of it was measured."""
        return self.lines.get(resolution, self.common)

    def apply(self, network: WholeNetwork) -> float:
        """The predicted latency in milliseconds."""
        return self.at(network.resolution).apply(network.without_overhead(self.overhead_ms))


def fit_corrections(networks: Sequence[WholeNetwork]) -> Corrections:
    """The corrections from whole networks; with fewer than three nothing is known of their error: it is infinite."""
    with_overhead = len(networks) >= MIN_NETWORKS_FOR_OVERHEAD
    fitted = _fit(networks, with_overhead)
    if len(networks) < MIN_NETWORKS:
        return fitted._replace(spread=np.inf, error=np.inf)
    residuals = []
    for index, left_out in enumerate(networks):
        others = [*networks[:index], *networks[index + 1 :]]
        residuals.append(_fit(others, with_overhead).apply(left_out) / left_out.measured_ms - 1)
    spread = float(np.sqrt(np.mean(np.square(residuals))))
    return fitted._replace(spread=spread, error=float(np.mean(np.abs(residuals))))


def common_line(networks: Sequence[WholeNetwork]) -> Correction:
    """One line for all networks and nothing else: what most tables are corrected by, for comparison."""
    sums, measured = (np.array([getattr(n, field) for n in networks], float) for field in ("sum_ms", "measured_ms"))
    return _line(sums, measured, Correction(0.0, float(np.median(measured / sums))), prior=0.0)


def _fit(networks: Sequence[WholeNetwork], with_overhead: bool) -> Corrections:
    if not networks:
        return Corrections(0.0, Correction(), {}, 0.0, 0.0)
    sums, counts, measured = (
        np.array([getattr(network, field) for network in networks], float)
        for field in ("sum_ms", "num_blocks", "measured_ms")
    )
    overhead = _overhead(sums, counts, measured) if with_overhead else 0.0
    sums = np.array([network.without_overhead(overhead) for network in networks])
    common = _line(sums, measured, Correction(0.0, float(np.median(measured / sums))), prior=0.0)
    lines = {}
    for resolution in sorted({network.resolution for network in networks}):
        here = np.array([network.resolution == resolution for network in networks])
        lines[resolution] = _line(sums[here], measured[here], common, PRIOR_NETWORKS)
    return Corrections(overhead, common, lines, 0.0, 0.0)


def _overhead(sums: np.ndarray, counts: np.ndarray, measured: np.ndarray) -> float:
    """What each block costs by being measured alone: the coefficient of the number of blocks."""
    if np.ptp(counts) == 0:
        return 0.0
    design = np.stack([np.ones_like(sums), sums, counts], 1) / measured[:, None]
    _, scale, by_count = np.linalg.lstsq(design, np.ones_like(sums), rcond=None)[0]
    if scale <= 0:
        return 0.0
    most = 0.5 * float((sums / counts).min())  # a block must keep most of what was measured
    return float(np.clip(-by_count / scale, 0.0, most))


def _line(sums: np.ndarray, measured: np.ndarray, towards: Correction, prior: float) -> Correction:
    """The rising line with the least squared relative error, drawn towards another one.

    A line that does not rise (too few or too similar networks) gives way to that one.
    """
    design = np.stack([np.ones_like(sums), sums], 1) / measured[:, None]
    wanted = np.ones_like(measured)
    if prior:
        # Pseudo-networks on the other line, at the ends of what was measured here.
        ends = np.array([sums.min(), sums.max()])
        on_line = towards.offset + towards.scale * ends
        weight = np.sqrt(prior / 2)
        design = np.concatenate([design, weight * np.stack([np.ones(2), ends], 1) / on_line[:, None]])
        wanted = np.concatenate([wanted, np.full(2, weight)])
    elif len(sums) < MIN_NETWORKS or np.ptp(sums) == 0:
        return towards
    offset, scale = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return Correction(float(offset), float(scale)) if scale > 0 else towards
