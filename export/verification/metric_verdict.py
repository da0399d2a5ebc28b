"""The verdict on metrics of an artifact other than latency: predicted by a table, measured, and what is allowed.

A metric is measured several times. If some of the measurements are within a limit and others are not, the verdict is
'not verified'.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.quantities import percent
from dmask_mobile.records.artifact import Artifact, ModelFormat, Precision
from dmask_mobile.records.verification import BUDGET_SUFFIX, ROUNDING, Check, Verdict, line_of
from export.verification.latency_verdict import excess_note


class MetricProbe(Protocol):
    """Measures on a table's device."""

    def meter(self, metric: str, path: Path) -> tuple[float, ...]:
        """Several measurements of a metric of the artifact, in the metric's unit."""
        ...


class PredictedMetric(NamedTuple):
    """A table's prediction of one metric of the child, for artifacts of one format and precision.

    ``metric``: its name on the device; ``name``: the name of its line. ``tolerance``: the share by which a measurement
    may differ. ``budgets``: the search's budgets for it, by name. ``probe``: measures it, or the reason why it cannot.
    """

    metric: str
    name: str
    unit: str
    model_format: ModelFormat
    precision: Precision
    predicted: float
    tolerance: float
    budgets: Mapping[str, float]
    probe: MetricProbe | str


def judge_metrics(
    artifact: Artifact, path: Path, predictions: Sequence[PredictedMetric], budget_tolerance: float
) -> Iterator[Check]:
    """The lines of one artifact: each metric, and each budget for it.

    A metric that no budget names is left out if it cannot be measured.

    Args:
        artifact: the artifact.
        path: its file.
        predictions: the predictions of all tables.
        budget_tolerance: the share by which a measurement may exceed a budget.
    """
    for prediction in predictions:
        if prediction.model_format != artifact.model_format:
            continue
        values = _measure(artifact, path, prediction)
        if isinstance(values, str) and not prediction.budgets:
            continue
        low, high = ((1 + sign * prediction.tolerance) * prediction.predicted for sign in (-1, 1))
        allowed = percent(prediction.tolerance)
        yield _line(artifact, prediction, prediction.name, prediction.predicted, values, (low, high), allowed)
        for name, limit in prediction.budgets.items():
            over = prediction.predicted > limit * (1 + ROUNDING)
            most = limit * (1 + budget_tolerance)
            allowed = f"at most +{percent(budget_tolerance)}"
            check = _line(artifact, prediction, name + BUDGET_SUFFIX, limit, values, (0.0, most), allowed)
            verdict, note = check.verdict, check.note
            if check.measured is not None:
                note = excess_note(check.measured, limit, budget_tolerance) + note
            if over:  # independent of the measurement
                verdict = "failed"
                note = f"the table predicts {prediction.predicted:.4g} {prediction.unit}, over the budget; {note}"
            yield check.model_copy(update={"verdict": verdict, "note": note})


def _line(
    artifact: Artifact,
    prediction: PredictedMetric,
    name: str,
    predicted: float,
    values: tuple[float, ...] | str,
    limits: tuple[float, float],
    allowed: str,
) -> Check:
    if isinstance(values, str):
        return line_of(artifact.label, name, prediction.unit, predicted, None, allowed, "not verified", values)
    measured = statistics.median(values)
    within = {limits[0] <= value <= limits[1] for value in values}
    verdict: Verdict = "not verified" if len(within) > 1 else "passed" if within == {True} else "failed"
    note = f"{len(values)} measurements, {(max(values) - min(values)) / measured:.1%} apart"
    if verdict == "not verified":
        note = f"the limit lies between them: {note}"
    return line_of(artifact.label, name, prediction.unit, predicted, measured, allowed, verdict, note)


def _measure(artifact: Artifact, path: Path, prediction: PredictedMetric) -> tuple[float, ...] | str:
    """The measurements, or the reason why there are none."""
    if prediction.precision != artifact.precision:
        return f"the table is of {prediction.precision}; profile one with --precision {artifact.precision}"
    if isinstance(prediction.probe, str):
        return prediction.probe
    if artifact.batch is None:
        return "the batch is open; export it again without --dynamic-batch to measure it"
    try:
        values = prediction.probe.meter(prediction.metric, path)
    except DmaskError as error:  # earlier results must not be lost
        return f"it could not be measured: {error}"
    if not values:
        return "the device gave no measurement"
    if not all(0 < value < math.inf for value in values):
        return f"a measurement must be a number above 0, got {shown(', '.join(map(str, values)))}"
    return values
