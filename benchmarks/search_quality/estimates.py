"""Differences with their standard errors and bootstrap intervals, percentiles, rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

from dmask_mobile.records.base import Record

RESAMPLES = 10_000
LOW, HIGH = 2.5, 97.5  # percent


class Difference(Record):
    """A mean difference, its standard error, and the 95% bootstrap interval."""

    mean: float
    standard_error: float
    low: float
    high: float


def difference(ours: np.ndarray, others: np.ndarray, paired: bool = False, seed: int = 0) -> Difference:
    """Ours minus others, both (units, trainings); ``paired``: unit i of both comes from the same search.

    The bootstrap draws units, and trainings within each unit. A single network of several trainings is a unit; where
    there is but one value, it is taken to vary as the trainings on the other side do.
    """
    random = np.random.default_rng(seed)
    if paired:
        by_unit = ours.mean(1) - others.mean(1)
        error = float(np.std(by_unit, ddof=1) / math.sqrt(len(by_unit)))
        chosen = random.integers(len(ours), size=(RESAMPLES, len(ours)))
        drawn = _resampled(ours, random, chosen) - _resampled(others, random, chosen)
    else:
        error = math.sqrt(_variance_of_mean(ours, others) + _variance_of_mean(others, ours))
        drawn = _resampled(ours, random) - _resampled(others, random)
    low, high = np.percentile(drawn, (LOW, HIGH))
    mean = float(ours.mean() - others.mean())
    return Difference(mean=mean, standard_error=error, low=float(low), high=float(high))


def _resampled(values: np.ndarray, random: np.random.Generator, units: np.ndarray | None = None) -> np.ndarray:
    """The means of bootstrap samples of (units, trainings)."""
    count, trainings = values.shape
    if units is None:
        units = random.integers(count, size=(RESAMPLES, count))
    inside = random.integers(trainings, size=(*units.shape, trainings))
    return np.asarray(values[units[..., None], inside].mean((1, 2)))


def _variance_of_mean(values: np.ndarray, others: np.ndarray) -> float:
    """Of the mean over units; of the mean over trainings where there is one unit."""
    if len(values) > 1:
        return float(values.mean(1).var(ddof=1) / len(values))
    if values.size > 1:
        return float(values.var(ddof=1) / values.size)
    return float(others.var(ddof=1))


def best_of_weights(by_validation: Sequence[float], count: int) -> np.ndarray:
    """How likely each of N is the best, by validation, of ``count`` of them that are drawn without replacement."""
    total = len(by_validation)
    weights = np.empty(total)
    for rank, number in enumerate(np.argsort(by_validation, kind="stable")):
        weights[number] = math.comb(rank, count - 1) / math.comb(total, count)
    return weights


class BestOf(Record):
    """The best of ``count`` random networks by validation: its expected accuracy and the interval of one such draw.

    ``gain``: ours minus that expectation.
    """

    count: int
    mean: float
    low: float
    middle: float
    high: float
    gain: Difference


def best_of(ours: np.ndarray, validation: np.ndarray, accuracies: np.ndarray, count: int, seed: int = 0) -> BestOf:
    """What best-of-``count`` random networks reach, and ours (searches, trainings) against it."""
    random = np.random.default_rng(seed)
    count = min(count, len(accuracies))
    weights = best_of_weights(validation.tolist(), count)
    order = np.argsort(accuracies)
    steps = np.cumsum(weights[order])
    low, middle, high = (float(accuracies[order[np.searchsorted(steps, q - 1e-9)]]) for q in (0.025, 0.5, 0.975))
    mean = float(weights @ accuracies)
    expected = np.empty(RESAMPLES)
    for number, chosen in enumerate(random.integers(len(accuracies), size=(RESAMPLES, len(accuracies)))):
        expected[number] = best_of_weights(validation[chosen].tolist(), count) @ accuracies[chosen]
    drawn = _resampled(ours, random) - expected
    ends = np.percentile(drawn, (LOW, HIGH))
    error = math.sqrt(_variance_of_mean(ours, ours) + expected.var(ddof=1))
    gain = Difference(mean=float(ours.mean() - mean), standard_error=error, low=float(ends[0]), high=float(ends[1]))
    return BestOf(count=count, mean=mean, low=low, middle=middle, high=high, gain=gain)


def percentile(ours: np.ndarray, others: np.ndarray) -> float:
    """The mean share of ``others`` that ours exceed, in percent; equal ones count one half."""
    below = (others[None] < ours.reshape(-1, 1)).mean() + 0.5 * (others[None] == ours.reshape(-1, 1)).mean()
    return float(100 * below)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau; None where one side has no differences."""
    tau = float(kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau
