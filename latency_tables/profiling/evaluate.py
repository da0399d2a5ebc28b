"""Judging a table: children that were never used for fitting, measured on the device now."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from latency_tables.prediction.correction import common_line
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.profile import remeasure
from latency_tables.profiling.setup import setup_of
from latency_tables.profiling.table_probe import SECONDS_PER_NETWORK, drift_of, named_models, sentinel_models
from latency_tables.table.statistics import summarize
from latency_tables.table.table import LatencyTable

PASSES, ROUNDS_PER_PASS = 2, 2
BATCH_CHILDREN = 25  # loaded at once
NEAR = 1.2  # latencies of one resolution within 20% of each other
QUANTILE_80 = 1.2816  # of the normal distribution: 80% lie within so many standard deviations
NUM_WORST = 5


class MeasuredChild(Record):
    """One child: predicted and its spread, by the uncorrected sum, by one line for all, and in each of two passes.

    ``drift``: how much slower the table's sentinels ran beside each pass than when the table was made.
    """

    child: ChildSpec
    predicted_ms: float
    spread_ms: float
    sum_ms: float
    line_ms: float
    passes_ms: tuple[float, ...]
    drift: tuple[float, ...]

    @property
    def error_without_drift(self) -> float:
        """The error if the device were what it was when the table was made."""
        return self.predicted_ms / float(np.mean(np.array(self.passes_ms) / (1 + np.array(self.drift)))) - 1

    @property
    def measured_ms(self) -> float:
        """The mean of the passes."""
        return float(np.mean(self.passes_ms))

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted_ms / self.measured_ms - 1


class Evaluation(Record):
    """How well a table predicts whole networks. Errors are shares of the measured latency.

    A Kendall tau is None where there are no pairs to compare. ``repeatability_mape`` is the error that a perfect table
    would have: see `repeatability`.
    """

    num_children: int
    mape: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    kendall_tau_near: float | None
    repeatability_mape: float
    coverage_80: float
    mape_sum: float
    mape_line: float
    mape_without_drift: float
    drift: float
    children: tuple[MeasuredChild, ...]

    def worst(self) -> list[MeasuredChild]:
        """The children that were predicted worst."""
        return sorted(self.children, key=lambda child: -abs(child.error))[:NUM_WORST]


def unseen_children(table: LatencyTable, space: SearchSpace, count: int, seed: int) -> list[ChildSpec]:
    """Random children of ``space`` that the table did not measure."""
    generator, used = random.Random(f"evaluate-{seed}"), {child.digest() for child in table.networks}
    found: dict[str, ChildSpec] = {}
    for number in range(100 * count):
        child = space.child(space.sample(generator), f"{space.name}-unseen{number}")
        if child.digest() not in used:
            found.setdefault(child.digest(), child)
        if len(found) == count:
            break
    return list(found.values())


def evaluate(
    table: LatencyTable, children: Sequence[ChildSpec], progress: Progress = silent, at: str | None = None
) -> Evaluation:
    """Measures ``children`` twice, apart in time, and holds the table's predictions against that.

    Args:
        table: the table.
        children: networks, which it did not measure.
        progress: told after each batch.
        at: how the table's device is reached now, if not as it was then.

    Raises:
        DmaskError: when the table belongs to another device or runtime, or cannot predict a child.
        MeasuringError: when the runtime fails on one of them.
    """
    if not children:
        raise DmaskError("no children to evaluate the table on", "the space has none that it did not measure itself")
    setup, model = setup_of(table, at), LatencyModel(table)
    latency = Latency(model)
    estimates = [latency.estimate(child) for child in children]
    passes_ms: list[list[float]] = [[] for _ in children]
    drifts: list[list[float]] = [[] for _ in children]
    models = named_models(setup, "child", children, progress)
    sentinels, done = sentinel_models(table, setup), 0
    for _ in range(PASSES):
        for start in range(0, len(children), BATCH_CHILDREN):
            keys = list(models)[start : start + BATCH_CHILDREN]
            batch = {**{key: models[key] for key in keys}, **sentinels}
            taken = remeasure(batch, setup, ROUNDS_PER_PASS, SECONDS_PER_NETWORK)
            drift_now = drift_of(table, taken)
            for key in keys:
                number = int(key.removeprefix("child"))
                passes_ms[number].append(summarize(taken[key]).typical_ms)
                drifts[number].append(drift_now)
            done += len(keys)
            progress("evaluate", done, PASSES * len(children))
    measured, line = [], common_line(model.whole_networks())
    for child, estimate, times, drift in zip(children, estimates, passes_ms, drifts, strict=True):
        network = model.whole_network(child, float(np.mean(times)))
        measured.append(
            MeasuredChild(
                child=child,
                predicted_ms=estimate.value,
                spread_ms=estimate.spread,
                sum_ms=network.sum_ms,
                line_ms=line.apply(network.sum_ms),
                passes_ms=tuple(times),
                drift=tuple(drift),
            )
        )
    return judge(measured)


def judge(children: Sequence[MeasuredChild]) -> Evaluation:
    """The figures of measured children."""
    errors = np.array([child.error for child in children])
    measured = np.array([child.measured_ms for child in children])
    predicted = np.array([child.predicted_ms for child in children])
    covered = np.abs(predicted - measured) <= QUANTILE_80 * np.array([child.spread_ms for child in children])
    return Evaluation(
        num_children=len(children),
        mape=float(np.abs(errors).mean()),
        within_5=float((np.abs(errors) <= 0.05).mean()),
        within_10=float((np.abs(errors) <= 0.10).mean()),
        kendall_tau=float(kendalltau(predicted, measured).statistic) if len(set(measured)) > 1 else None,
        kendall_tau_near=_near_tau(children),
        repeatability_mape=repeatability(np.array([child.passes_ms for child in children])),
        coverage_80=float(covered.mean()),
        mape_sum=float(np.mean([abs(child.sum_ms / child.measured_ms - 1) for child in children])),
        mape_line=float(np.mean([abs(child.line_ms / child.measured_ms - 1) for child in children])),
        mape_without_drift=float(np.mean([abs(child.error_without_drift) for child in children])),
        drift=float(np.median([child.drift for child in children])),
        children=tuple(children),
    )


def repeatability(passes_ms: np.ndarray) -> float:
    """The mean absolute error that a table without any error would have against the mean of two passes.

    A pass measures the true latency t as t (1 + e), with a noise e that is small, symmetric and independent between
    passes. Against the mean of both, the true latency is off by -(e1 + e2) / 2. That has the distribution of
    (e2 - e1) / 2, which is half of what the passes differ by, pass2 / pass1 - 1. What both passes have in common, as
    the drift since the table was made, is not in it.

    Args:
        passes_ms: (children, 2), the latencies of each child.
    """
    first, second = passes_ms.T
    return float(np.abs(second / first - 1).mean() / 2)


class _Pairs(NamedTuple):
    concordant: int
    discordant: int


def _near_tau(children: Sequence[MeasuredChild]) -> float | None:
    """Kendall tau over the pairs of one resolution whose latencies lie within 20% of each other; None without such."""
    pairs = _Pairs(0, 0)
    for index, first in enumerate(children):
        for second in children[:index]:
            low, high = sorted((first.measured_ms, second.measured_ms))
            if first.child.resolution != second.child.resolution or high > NEAR * low or low == high:
                continue
            agree = (first.measured_ms > second.measured_ms) == (first.predicted_ms > second.predicted_ms)
            pairs = _Pairs(pairs.concordant + agree, pairs.discordant + (not agree))
    total = pairs.concordant + pairs.discordant
    return (pairs.concordant - pairs.discordant) / total if total else None
