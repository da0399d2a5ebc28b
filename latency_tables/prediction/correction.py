"""From sums of blocks to whole networks: what isolated blocks miss, learned from networks measured on the device.

``latency = a_r + b_r * sum over blocks of (t_block - o - p m_block + q w_block)``, one rising line for each resolution
r. A block measured alone pays for being called (``o``) and for bringing its maps into and out of the runtime's own
layout (``p`` for each of the ``m`` million values of its input and output); inside a network it does not. There its
``w`` megabytes of weights come from memory (``q``), while alone they stay in the cache from run to run. All of it is
fitted to *relative* errors; the line of a resolution is drawn towards the one of all resolutions, the more so the fewer
networks it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from dmask_mobile.costs.values import Correction

PRIOR_NETWORKS = 2.0  # so many networks the common line counts for in the line of one resolution
MIN_NETWORKS = 3  # in all
MIN_NETWORKS_FOR_CONTEXT = 12
MIN_SHARE = 0.2  # of its own latency: what a block counts for at least


class Part(NamedTuple):
    """A block by itself: milliseconds, millions of values in its input and output, megabytes of weights."""

    ms: float
    moved: float
    weights_mb: float


class Context(NamedTuple):
    """How a block differs inside a network from one measured alone, in milliseconds.

    Less for a call and for each million values moved, more for each megabyte of weights.
    """

    call_ms: float = 0.0
    moved_ms: float = 0.0
    weights_ms: float = 0.0

    def of(self, part: Part) -> float:
        """What a block adds to a network."""
        saved = self.call_ms + self.moved_ms * part.moved
        return max(MIN_SHARE * part.ms, part.ms - saved + self.weights_ms * part.weights_mb)


class WholeNetwork(NamedTuple):
    """A measured network and its blocks by themselves."""

    resolution: int
    parts: tuple[Part, ...]
    measured_ms: float

    @property
    def sum_ms(self) -> float:
        """Of the blocks by themselves."""
        return sum(part.ms for part in self.parts)

    def sum_in(self, context: Context) -> float:
        """The sum of what the blocks add to a network."""
        return sum(context.of(part) for part in self.parts)


class Corrections(NamedTuple):
    """What changes in context and the lines, with the relative error that is left on networks not used for them.

    ``spread`` is their standard deviation, ``error`` their mean absolute value; both by leaving one network out.
    """

    context: Context
    common: Correction
    lines: dict[int, Correction]
    spread: float
    error: float

    def at(self, resolution: int) -> Correction:
        """The line of a resolution; the common one where no network of it was measured."""
        return self.lines.get(resolution, self.common)

    def apply(self, network: WholeNetwork) -> float:
        """The predicted latency in milliseconds."""
        return self.at(network.resolution).apply(network.sum_in(self.context))


def fit_corrections(networks: Sequence[WholeNetwork]) -> Corrections:
    """The corrections from whole networks; with fewer than three nothing is known of their error: it is infinite."""
    with_context = len(networks) >= MIN_NETWORKS_FOR_CONTEXT
    fitted = _fit(networks, with_context)
    if len(networks) < MIN_NETWORKS:
        return fitted._replace(spread=np.inf, error=np.inf)
    predicted = predicted_by_others(networks)
    residuals = [ms / network.measured_ms - 1 for ms, network in zip(predicted, networks, strict=True)]
    spread = float(np.sqrt(np.mean(np.square(residuals))))
    return fitted._replace(spread=spread, error=float(np.mean(np.abs(residuals))))


def predicted_by_others(networks: Sequence[WholeNetwork]) -> list[float]:
    """The latency of each network in milliseconds, predicted by corrections that were fitted to all the others."""
    with_context = len(networks) >= MIN_NETWORKS_FOR_CONTEXT
    return [
        _fit([*networks[:index], *networks[index + 1 :]], with_context).apply(left_out)
        for index, left_out in enumerate(networks)
    ]


def common_line(networks: Sequence[WholeNetwork]) -> Correction:
    """One line for all networks and nothing else: what most tables are corrected by, for comparison."""
    sums, measured = (np.array([getattr(n, field) for n in networks], float) for field in ("sum_ms", "measured_ms"))
    return _common(sums, measured)


def _fit(networks: Sequence[WholeNetwork], with_context: bool) -> Corrections:
    if not networks:
        return Corrections(Context(), Correction(), {}, 0.0, 0.0)
    context = _context(networks) if with_context else Context()
    sums = np.array([network.sum_in(context) for network in networks])
    measured = np.array([network.measured_ms for network in networks])
    common = _common(sums, measured)
    lines = {}
    for resolution in sorted({network.resolution for network in networks}):
        here = np.array([network.resolution == resolution for network in networks])
        lines[resolution] = _line(sums[here], measured[here], common, PRIOR_NETWORKS)
    return Corrections(context, common, lines, 0.0, 0.0)


def _common(sums: np.ndarray, measured: np.ndarray) -> Correction:
    """The line of all networks; the median ratio where they are too few or too similar for one."""
    return _line(sums, measured, Correction(0.0, float(np.median(measured / sums))), prior=0.0)


def _context(networks: Sequence[WholeNetwork]) -> Context:
    """The coefficients of the number of blocks, of what they move and of their weights, each of its own sign."""
    rows = [
        (1.0, n.sum_ms, -len(n.parts), -sum(p.moved for p in n.parts), sum(p.weights_mb for p in n.parts))
        for n in networks
    ]
    measured = np.array([network.measured_ms for network in networks])
    design = np.array(rows)
    used = [0, 1, *(column for column in (2, 3, 4) if np.ptp(design[:, column]) > 0)]
    lowest = np.array([-np.inf, 1e-9, 0.0, 0.0, 0.0])[used]
    found = lsq_linear(design[:, used] / measured[:, None], np.ones_like(measured), (lowest, np.inf)).x
    by_column = dict(zip(used, found / found[1], strict=True))
    return Context(*(float(by_column.get(column, 0.0)) for column in (2, 3, 4)))


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
