"""Numbers derived from raw samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

MAX_IDLE_SHARE = 0.1  # the share of wall time in which an uninterrupted thread does not compute
MIN_SHARE = 0.95  # of the usual share of CPU time; below it, another program has interrupted the run
MIN_QUIET_RUNS = 3
QUANTILES = (0.5, 0.25)  # of a round's runs; the device determines which one is used
MUCH_BETTER = 0.9  # of the median's spread between rounds


class Summary(NamedTuple):
    """Typical milliseconds and the relative noise of them.

    ``doubtful``: whether all rounds were disturbed.
    """

    typical_ms: float
    noise: float
    doubtful: bool = False


def summarize(rounds_ms: Sequence[float], drift: Sequence[float] | None = None) -> Summary:
    """The median of the rounds, and half their range as a share of it.

    Rounds are measured at different times, so their range shows drift, which the samples of one round cannot show.

    Args:
        rounds_ms: the typical milliseconds of each round.
        drift: how slow the machine was in each round, relative to its usual speed (default: always 1).
    """
    times = np.asarray(rounds_ms, float) / (1.0 if drift is None else np.asarray(drift))
    typical = float(np.median(times))
    return Summary(typical, float((times.max() - times.min()) / 2 / typical))


def smooth(values: Sequence[float]) -> np.ndarray:
    """The running median over three neighbours, so that a single disturbed value has no effect."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    smoothed: np.ndarray = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return smoothed


class RoundTime(NamedTuple):
    """The milliseconds of one round; ``interrupted``: other programs used the core during almost every run."""

    ms: float
    interrupted: bool


def usual_share(rounds: Iterable[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """The share of wall time in which the measuring thread computes if nothing interrupts it.

    This is the 90% quantile of the largest share of each round, because runs are short and most are not interrupted.

    Args:
        rounds: the wall and CPU times of the runs of each round, in milliseconds.

    Returns:
        None if the thread's CPU time does not show interruptions, because it waits for a GPU or the clock is coarse.
    """
    shares = [max(cpu / wall for wall, cpu in zip(*times, strict=True)) for times in rounds if times[1]]
    if not shares:
        return None
    usual = float(np.quantile(shares, 0.9))
    return usual if abs(usual - 1) <= MAX_IDLE_SHARE else None


def round_time(
    wall_ms: Sequence[float], cpu_ms: Sequence[float], usual: float | None, quantile: float = 0.5
) -> RoundTime:
    """A quantile of the uninterrupted runs of a round; if there are too few, the same quantile of their CPU time.

    Args:
        wall_ms: the wall time of each run.
        cpu_ms: the CPU time of the thread in each run; empty if unknown.
        usual: the result of `usual_share` for the device.
        quantile: the quantile.
    """
    if usual is None or not cpu_ms:
        return RoundTime(_quantile(wall_ms, quantile), interrupted=False)
    least = MIN_SHARE * usual
    quiet = [wall for wall, cpu in zip(wall_ms, cpu_ms, strict=True) if cpu >= least * wall]
    if len(quiet) >= min(MIN_QUIET_RUNS, len(wall_ms)):
        return RoundTime(_quantile(quiet, quantile), interrupted=False)
    return RoundTime(max(_quantile(cpu_ms, quantile) / usual, 1e-3 * min(wall_ms)), interrupted=True)


def _quantile(values: Sequence[float], quantile: float) -> float:
    """The same as NumPy's quantile, which takes a hundred times as long for a few values."""
    ordered = sorted(values)
    place = quantile * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def best_quantile(rounds: Sequence[Mapping[float, float]]) -> float:
    """The quantile of runs that repeats best from round to round; the median unless another is 10% better.

    Args:
        rounds: for pairs of neighbouring rounds of each subject, the ratio of their times for each quantile.
    """
    if not rounds:
        return QUANTILES[0]
    spread = {q: float(np.mean([abs(np.log(ratios[q])) for ratios in rounds])) for q in QUANTILES}
    best = min(QUANTILES, key=lambda quantile: spread[quantile])
    return best if spread[best] < MUCH_BETTER * spread[QUANTILES[0]] else QUANTILES[0]
