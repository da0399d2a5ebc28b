"""The figures of a table: its predictions compared with children that were measured in several passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import kendalltau

from dmask_mobile.records.base import Record
from dmask_mobile.records.child import ChildSpec

NEAR = 1.2  # latencies of one resolution within 20% of each other
QUANTILE_80 = 1.2816  # of the normal distribution: 80% lie within this number of standard deviations
STANDARD_DEVIATION = float(np.sqrt(np.pi / 2))  # of a normal distribution whose mean absolute value is 1
NUM_WORST = 5
RESAMPLES, CONFIDENCE = 400, 0.95


class MeasuredChild(Record):
    """One child: its prediction and spread, predictions by the plain sum and by one line for all, and each pass.

    Predictions are for the speed of the device when the table was made. ``drift``: how much slower the table's
    sentinels ran at each pass.
    """

    child: ChildSpec
    predicted_ms: float
    spread_ms: float
    sum_ms: float
    line_ms: float
    passes_ms: tuple[float, ...]
    drift: tuple[float, ...]

    @property
    def measured_ms(self) -> float:
        """The mean of the passes."""
        return float(np.mean(self.passes_ms))


class MetricJudgement(Record):
    """How well a metric beside latency is predicted: ``mape`` is the mean of |predicted / measured - 1|."""

    metric: str
    num_children: int
    mape: float


class JudgedChild(Record):
    """A child's prediction for the current speed of the device, and its measurement.

    ``error``: predicted / measured - 1.
    """

    child: ChildSpec
    predicted_ms: float
    measured_ms: float
    error: float


class Evaluation(Record):
    """How well a table predicts whole networks. Errors are shares of the measured latency.

    Predictions are scaled to the current speed of the device: they are multiplied by 1 + ``drift``, which the table's
    sentinels showed while the children were measured. ``mape_unscaled`` is the error without scaling. A Kendall tau is
    None if there are no pairs to compare. ``repeatability_mape`` is the error that a perfect table would have: see
    `repeatability`. ``coverage_80``: the share of children inside the stated 80% interval; ``coverage_80_widened``:
    inside `inside_widened_80`. ``intervals``: the 95% bootstrap interval of each figure by name. ``metrics``: those
    that the table can predict, measured for some of the children.
    """

    num_children: int
    num_passes: int
    mape: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    kendall_tau_near: float | None
    repeatability_mape: float
    coverage_80: float
    coverage_80_widened: float
    mape_sum: float
    mape_line: float
    mape_unscaled: float
    drift: float
    intervals: Mapping[str, tuple[float, float] | None]
    children: tuple[MeasuredChild, ...]
    metrics: tuple[MetricJudgement, ...] = ()

    def judged(self) -> list[JudgedChild]:
        """Each child with its prediction for the current speed of the device."""
        scale = 1 + self.drift
        return [
            JudgedChild(
                child=measured.child,
                predicted_ms=scale * measured.predicted_ms,
                measured_ms=measured.measured_ms,
                error=scale * measured.predicted_ms / measured.measured_ms - 1,
            )
            for measured in self.children
        ]

    def worst(self) -> list[JudgedChild]:
        """The children with the largest errors."""
        return sorted(self.judged(), key=lambda judged: -abs(judged.error))[:NUM_WORST]


def judge(children: Sequence[MeasuredChild], seed: int = 0) -> Evaluation:
    """The figures of measured children, with intervals by bootstrap over the children.

    Args:
        children: the measured children.
        seed: the seed of the bootstrap.
    """
    drift = float(np.median([child.drift for child in children]))
    passes_ms = np.array([child.passes_ms for child in children])
    measured, scale = passes_ms.mean(1), 1 + drift
    predicted = np.array([child.predicted_ms for child in children])
    spread = np.array([child.spread_ms for child in children])
    errors = np.abs(scale * predicted / measured - 1)
    halves = half_differences(passes_ms)
    covered = np.abs(scale * predicted - measured) <= QUANTILE_80 * scale * spread
    covered_widened = inside_widened_80(scale * predicted, scale * spread, passes_ms)
    near = near_pairs(children)

    def mean_error(attribute: str, factor: float = scale) -> float:
        values = np.array([getattr(child, attribute) for child in children])
        return float(np.abs(factor * values / measured - 1).mean())

    figures: dict[str, Callable[[np.ndarray], float | None]] = {
        "mape": lambda chosen: float(errors[chosen].mean()),
        "within_5": lambda chosen: float((errors[chosen] <= 0.05).mean()),
        "within_10": lambda chosen: float((errors[chosen] <= 0.10).mean()),
        "kendall_tau": lambda chosen: _tau(predicted[chosen], measured[chosen]),
        "kendall_tau_near": lambda chosen: _tau_of_pairs(near, predicted, measured, chosen),
        "repeatability_mape": lambda chosen: float(halves[chosen].mean()),
        "coverage_80": lambda chosen: float(covered[chosen].mean()),
        "coverage_80_widened": lambda chosen: float(covered_widened[chosen].mean()),
    }
    everything = np.arange(len(children))
    return Evaluation(
        num_children=len(children),
        num_passes=passes_ms.shape[1],
        **{name: figure(everything) for name, figure in figures.items()},
        mape_sum=mean_error("sum_ms"),
        mape_line=mean_error("line_ms"),
        mape_unscaled=mean_error("predicted_ms", 1.0),
        drift=drift,
        intervals={name: bootstrap_interval(figure, len(children), seed) for name, figure in figures.items()},
        children=tuple(children),
    )


def inside_widened_80(predicted_ms: np.ndarray, spread_ms: np.ndarray, passes_ms: np.ndarray) -> np.ndarray:
    """Which measurements are inside the 80% interval of their prediction, widened by their own noise.

    A noisy measurement lies outside an interval that holds the true latency. The stated spread already contains the
    noise of the networks that the table was corrected by, so this share is an upper bound of the true coverage, as the
    share inside the interval itself is a lower bound.

    Args:
        predicted_ms: (children,).
        spread_ms: (children,), one standard deviation of each prediction.
        passes_ms: (children, passes); the number of passes is even.
    """
    measured_ms = passes_ms.mean(1)
    noise = STANDARD_DEVIATION * repeatability(passes_ms)
    inside: np.ndarray = np.abs(predicted_ms - measured_ms) <= QUANTILE_80 * np.hypot(spread_ms, noise * measured_ms)
    return inside


def repeatability(passes_ms: np.ndarray) -> float:
    """The mean absolute error that a perfect table would have relative to the mean of the passes.

    A pass measures the true latency t as t (1 + e), with a noise e that is small, symmetric and independent between
    passes. The error of the true latency relative to the mean of n passes is -(e1 + ... + en) / n. This has the
    distribution of (e1 + ... - ... - en) / n with n/2 passes of each sign, which is half of the difference between the
    means of two halves of the passes. It is averaged over all ways to halve them. A common error of all passes, such as
    the drift since the table was made, is not included.

    Args:
        passes_ms: (children, passes), the latencies of each child; the number of passes is even.
    """
    return float(half_differences(passes_ms).mean())


def half_differences(passes_ms: np.ndarray) -> np.ndarray:
    """For each child, the mean over all ways to halve its passes of |mean of one half / mean of the other - 1| / 2."""
    count = passes_ms.shape[1]
    relative = passes_ms / passes_ms.mean(1, keepdims=True)
    halves = [half for half in itertools.combinations(range(count), count // 2) if 0 in half]
    signs = np.array([[1.0 if number in half else -1.0 for number in range(count)] for half in halves])
    differences: np.ndarray = np.abs(relative @ signs.T).mean(1) / count
    return differences


def bootstrap_interval(
    figure: Callable[[np.ndarray], float | None], count: int, seed: int
) -> tuple[float, float] | None:
    """The 95% interval of the values of ``figure`` when its ``count`` items are drawn with replacement.

    Args:
        figure: a function of the indices of the drawn items; None if they give no figure.
        count: the number of items.
        seed: the seed of the draws.
    """
    draws = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    values = [value for chosen in draws if (value := figure(chosen)) is not None]
    if not values:
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def near_pairs(children: Sequence[MeasuredChild]) -> np.ndarray:
    """(children, children): whether two have the same resolution and different latencies within 20% of each other."""
    measured = np.array([child.measured_ms for child in children])
    resolutions = np.array([child.child.resolution for child in children])
    high, low = (ordered(measured[:, None], measured[None]) for ordered in (np.maximum, np.minimum))
    pairs: np.ndarray = (high <= NEAR * low) & (high > low) & (resolutions[:, None] == resolutions[None])
    return pairs


def _tau_of_pairs(pairs: np.ndarray, predicted: np.ndarray, measured: np.ndarray, chosen: np.ndarray) -> float | None:
    """Kendall's tau over only the chosen pairs; None if there are none."""
    among = pairs[np.ix_(chosen, chosen)]
    total = int(among.sum())
    if not total:
        return None
    agree = (np.subtract.outer(measured, measured) > 0) == (np.subtract.outer(predicted, predicted) > 0)
    return float(2 * (agree[np.ix_(chosen, chosen)] & among).sum() / total - 1)


def _tau(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    """Kendall's tau; None if all values are equal."""
    if len(set(measured)) < 2 or len(set(predicted)) < 2:
        return None
    return float(kendalltau(predicted, measured).statistic)
