"""Numbers derived from raw samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

MAX_IDLE_SHARE = 0.1  # of wall time, in which a thread that nothing interrupts does not compute
MIN_SHARE = 0.95  # of the usual share of CPU time: below it, something else has run in between
MIN_QUIET_RUNS = 3
QUANTILES = (0.5, 0.25)  # of a round's runs; which one is taken depends on the device
MUCH_BETTER = 0.9  # of the median's spread between rounds


class Summary(NamedTuple):
    """Typical milliseconds and the relative noise of them.

    ``doubtful``: there are only rounds that were disturbed.
    """

    typical_ms: float
    noise: float
    doubtful: bool = False


def summarize(rounds_ms: Sequence[float], drift: Sequence[float] | None = None) -> Summary:
    """Median of the rounds, and half their range as a share of it.

    Rounds lie apart in time, so their range shows drift, which the samples of one round cannot.

    Args:
        rounds_ms: the typical milliseconds of each round.
        drift: how slow the machine was in each round, relative to its usual self (default: 1 throughout).
    """
    times = np.asarray(rounds_ms, float) / (1.0 if drift is None else np.asarray(drift))
    typical = float(np.median(times))
    return Summary(typical, float((times.max() - times.min()) / 2 / typical))


def smooth(values: Sequence[float]) -> np.ndarray:
    """Running median over three neighbours: one disturbed value says nothing about its time."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    smoothed: np.ndarray = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return smoothed


class RoundTime(NamedTuple):
    """Milliseconds of one round; ``interrupted``: other programs took the core during almost every run of it."""

    ms: float
    interrupted: bool


def usual_share(rounds: Iterable[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """The share of its wall time that the measuring thread computes when nothing interrupts it.

    The largest share of each round counts, as a run is soon over and most are not interrupted; of those the 90%
    quantile.

    Args:
        rounds: wall and CPU times of each round's runs, in milliseconds.

    Returns:
        None where the thread's CPU time says nothing about interruptions: it waits for a GPU, or the clock is coarse.
    """
    shares = [max(cpu / wall for wall, cpu in zip(*times, strict=True)) for times in rounds if times[1]]
    if not shares:
        return None
    usual = float(np.quantile(shares, 0.9))
    return usual if abs(usual - 1) <= MAX_IDLE_SHARE else None


def round_time(
    wall_ms: Sequence[float], cpu_ms: Sequence[float], usual: float | None, quantile: float = 0.5
) -> RoundTime:
    """A quantile of the runs of a round that nothing interrupted; where too few are left, the same of their CPU time.

    Args:
        wall_ms: of each run.
        cpu_ms: of each run's thread; empty where it is not known.
        usual: what `usual_share` says of the device.
        quantile: which one.
    """
    if usual is None or not cpu_ms:
        return RoundTime(_quantile(wall_ms, quantile), interrupted=False)
    least = MIN_SHARE * usual
    quiet = [wall for wall, cpu in zip(wall_ms, cpu_ms, strict=True) if cpu >= least * wall]
    if len(quiet) >= min(MIN_QUIET_RUNS, len(wall_ms)):
        return RoundTime(_quantile(quiet, quantile), interrupted=False)
    return RoundTime(max(_quantile(cpu_ms, quantile) / usual, 1e-3 * min(wall_ms)), interrupted=True)


def _quantile(values: Sequence[float], quantile: float) -> float:
    """As NumPy's, which takes a hundred times as long for a few values."""
    ordered = sorted(values)
    place = quantile * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def best_quantile(rounds: Sequence[Mapping[float, float]]) -> float:
    """The quantile of runs that repeats best from round to round; the median unless another is 10% better.

    Args:
        rounds: of one subject after the other, two neighbouring rounds each time: for each quantile the ratio of their
            times.
    """
    if not rounds:
        return QUANTILES[0]
    spread = {q: float(np.mean([abs(np.log(ratios[q])) for ratios in rounds])) for q in QUANTILES}
    best = min(QUANTILES, key=lambda quantile: spread[quantile])
    return best if spread[best] < MUCH_BETTER * spread[QUANTILES[0]] else QUANTILES[0]
