"""The metrics of whole networks beside latency: how the measured networks of a table predict other networks.

A further metric is one class here, and one function in `latency_tables.devices.agent.METERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.latency import Latency
from dmask_mobile.costs.memory import PeakActivationBytes, WeightBytes
from dmask_mobile.costs.model import SpaceCost
from dmask_mobile.costs.peak_and_sum import PeakAndSum
from dmask_mobile.costs.values import Correction
from dmask_mobile.errors import DmaskError
from dmask_mobile.quantities import TABLE_UNITS
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate
from dmask_mobile.records.space import SearchSpace
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.table.table import LatencyTable

MIN_NETWORKS = 5
LOWEST = 1e-9  # of a coefficient of features that are costs: a correction of a sum needs a scale above 0


class Metric(ABC):
    """A metric of whole networks, predicted as ``constant + sum of coefficient * feature``, with coefficients > 0.

    ``name``: its name in budgets and in `latency_tables.devices.agent.METERS`. ``tolerance``: the share by which a
    measurement may differ from a prediction. ``follows_speed``: it depends on the current speed of the device.
    """

    name: ClassVar[str]
    tolerance: ClassVar[float]
    follows_speed: ClassVar[bool]

    def __init__(self, table: LatencyTable) -> None:
        self.table = table

    @abstractmethod
    def features(self, child: ChildSpec) -> tuple[float, ...]:
        """The features of a network, each above 0."""

    @abstractmethod
    def on(self, space: SearchSpace, name: str, constant: float, coefficients: Sequence[float]) -> SpaceCost:
        """The metric of every child of ``space``; ``name``: its name in budgets."""


class Memory(Metric):
    """The peak of the resident bytes of loading a model and running it, beyond those of the runtime.

    Its features are the bytes of the weights and the peak of the bytes of activations. Runtimes repack weights and
    keep both copies (ONNX Runtime), or plan activations together (LiteRT), so that the coefficients are not 1.
    """

    name = "memory"
    tolerance = 0.15
    follows_speed = False

    def features(self, child: ChildSpec) -> tuple[float, ...]:
        """Bytes of weights, and of activations at the peak."""
        weights = WeightBytes(self.table.head.precision)
        return weights.estimate(child).value, PeakActivationBytes().estimate(child).value

    def on(self, space: SearchSpace, name: str, constant: float, coefficients: Sequence[float]) -> PeakAndSum:
        """A sum over the weights of the blocks, and the peak of activations."""
        of_weights, of_activations = coefficients
        weights = WeightBytes(self.table.head.precision).on(space)
        total = _on_a_line(weights, name, TABLE_UNITS[self.name], constant, of_weights)
        return PeakAndSum(total, PeakActivationBytes().on(space), of_activations, name, TABLE_UNITS[self.name])


class Energy(Metric):
    """The millijoules of one run beyond those of the idle processor; its feature is the predicted latency."""

    name = "energy"
    tolerance = 0.20
    follows_speed = True

    def features(self, child: ChildSpec) -> tuple[float, ...]:
        """The predicted latency in milliseconds."""
        return (Latency(self._latencies).estimate(child).value,)

    def on(self, space: SearchSpace, name: str, constant: float, coefficients: Sequence[float]) -> ChainCost:
        """The tensors of the latency, on another line."""
        latency = Latency(self._latencies).on(space)
        return _on_a_line(latency, name, TABLE_UNITS[self.name], constant, *coefficients)

    @cached_property
    def _latencies(self) -> LatencyModel:
        return LatencyModel(self.table)


METRICS: Mapping[str, type[Metric]] = {metric.name: metric for metric in (Memory, Energy)}


class FittedMetric(NamedTuple):
    """The coefficients of a metric, and the relative errors of networks that were left out of the fit.

    ``error``: their mean absolute value; ``spread``: their standard deviation around 0.
    """

    constant: float
    coefficients: tuple[float, ...]
    error: float
    spread: float

    def of(self, features: Sequence[float]) -> float:
        """The predicted value."""
        return self.constant + float(np.dot(self.coefficients, features))


class MetricModel:
    """Predicts one metric from the networks of a table; satisfies `dmask_mobile.costs.model.CostModel`.

    Args:
        table: the measurements.
        metric: the name of the metric.
        name: the name used in budgets.

    Raises:
        DmaskError: if the table has too few measurements of it.
    """

    def __init__(self, table: LatencyTable, metric: str, name: str = "") -> None:
        self.table = table
        self.metric = METRICS[metric](table)
        self.name = name or metric
        self.unit = TABLE_UNITS[metric]
        if (lacking := what_is_lacking(table, metric)) is not None:
            raise lacking

    @cached_property
    def fitted(self) -> FittedMetric:
        """The coefficients, with their error."""
        measured = self.table.metrics[self.metric.name]
        return fit_metric([self.metric.features(child) for child in measured], list(measured.values()))

    def estimate(self, child: ChildSpec) -> CostEstimate:
        """The metric of one network, with its spread."""
        value = self.fitted.of(self.metric.features(child))
        return CostEstimate(cost=self.name, value=value, unit=self.unit, spread=value * self.fitted.spread)

    def on(self, space: SearchSpace) -> SpaceCost:
        """The metric of every child of ``space``."""
        return self.metric.on(space, self.name, self.fitted.constant, self.fitted.coefficients)


def what_is_lacking(table: LatencyTable, metric: str) -> DmaskError | None:
    """The error for a table that has too few measurements of a metric to predict it; None if it has enough."""
    count = len(table.metrics.get(metric, {}))
    if count >= MIN_NETWORKS:
        return None
    if metric in table.not_reported:
        return DmaskError(
            f"{metric} is not available on the device of '{table.source}': {table.not_reported[metric]}",
            f"leave out the budget for {metric}, or profile a device that reports it",
        )
    return DmaskError(
        f"'{table.source}' holds {metric} of {count} whole networks, at least {MIN_NETWORKS} are needed",
        f"measure it: dmask profile SPACE -o {table.source} adds it to the table",
    )


def fit_metric(features: Sequence[Sequence[float]], values: Sequence[float]) -> FittedMetric:
    """The coefficients with the smallest relative errors, all above 0; each network is left out once for the error."""
    design_NF, values_N = np.column_stack([np.ones(len(values)), np.array(features)]), np.array(values, float)
    errors = []
    for left_out in range(len(values)):
        kept = np.arange(len(values)) != left_out
        errors.append(design_NF[left_out] @ _solve(design_NF[kept], values_N[kept]) / values_N[left_out] - 1)
    constant, *coefficients = map(float, _solve(design_NF, values_N))
    error, spread = float(np.mean(np.abs(errors))), float(np.sqrt(np.mean(np.square(errors))))
    return FittedMetric(constant, tuple(coefficients), error, spread)


def _solve(design_NF: np.ndarray, values_N: np.ndarray) -> np.ndarray:
    """The non-negative least squares of relative errors; features are scaled to 1, because they differ a lot."""
    scales = np.array([1.0, *(float(values_N.mean() / column.mean()) for column in design_NF.T[1:])])
    scales[0] = float(values_N.mean())
    rows = design_NF * scales / values_N[:, None]
    lowest = np.array([0.0, *[LOWEST] * (len(scales) - 1)])
    solution: np.ndarray = lsq_linear(rows, np.ones(len(values_N)), (lowest, np.inf)).x * scales
    return solution


def _on_a_line(cost: ChainCost, name: str, unit: str, constant: float, scale: float) -> ChainCost:
    """``constant + scale * cost``."""
    corrections = tuple(Correction(constant + scale * c.offset, scale * c.scale) for c in cost.corrections)
    return ChainCost(cost.space, name, unit, corrections, cost.blocks)
