"""The verdict on an artifact's latency: predicted by a table, measured, and the allowed difference.

Allowed deviations are constants. The uncertainty of a measurement never widens them: if it could change a verdict, the
verdict is 'not verified'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from dmask_mobile.errors import DmaskError
from dmask_mobile.quantities import percent
from dmask_mobile.records.artifact import Artifact, LatencyPrediction, Precision
from dmask_mobile.records.verification import BUDGET_SUFFIX, BUDGET_TOLERANCE, ROUNDING, Check, Verdict, line_of

LATENCY_TOLERANCE = 0.10
"""How far a measurement may be from the table's prediction, in both directions."""
UNSTABLE_NOISE = 0.10
MAX_DRIFT, MAX_ALLOWED_DRIFT = 0.10, 0.25  # the second with --allow-drift
MIN_RUNS = 10
"""The minimum number of runs of an external measurement with unknown deviation."""


class MeasuredLatency(NamedTuple):
    """Typical milliseconds, their relative noise, and the relative drift of the device since the table was made.

    ``noise``: None if the variation of single runs is unknown. ``source``: the origin of the figure, if it was not
    measured now. ``runs``: the number of runs, None if unknown.
    """

    ms: float
    noise: float | None
    drift: float
    source: str = ""
    runs: int | None = None


class LatencyProbe(Protocol):
    """Measures on a table's device."""

    def measure(self, path: Path) -> MeasuredLatency:
        """The current latency of the artifact."""
        ...


class PredictedLatency(NamedTuple):
    """A table's prediction of the child's latency in one format and precision.

    ``name``: the name of its line. ``budgets``: the search's budgets for it in ms, by name. ``probe``: a function that
    measures, or the reason why nothing can be measured. ``delegate``: the backend of the table's runtime, None if
    unknown.
    """

    name: str
    model_format: str
    precision: Precision
    predicted: LatencyPrediction
    budgets: Mapping[str, float]
    probe: LatencyProbe | str
    delegate: str | None = None


class LatencyRules(NamedTuple):
    """How to judge latencies.

    ``allow_drift``: judge even if the device has drifted by 10% to 25%, and do not count drift as uncertainty.
    ``budget_tolerance``: the share by which a measurement may exceed a budget.
    """

    allow_drift: bool = False
    budget_tolerance: float = BUDGET_TOLERANCE


DEFAULT_RULES = LatencyRules()


def predictions_for(artifact: Artifact, predictions: Sequence[PredictedLatency]) -> list[PredictedLatency]:
    """The predictions of an artifact's latency.

    These are the predictions for its format and precision. If there are none, they are the predictions for its format
    in other precisions, which cannot be judged. If no table has its format, it is the prediction in its own metadata.
    """
    of_format = [prediction for prediction in predictions if prediction.model_format == artifact.model_format]
    if not of_format and artifact.latency is not None:
        missing = f"no table of {artifact.latency.device} was found; give --table or --measured FILE"
        precision = artifact.latency.precision
        return [PredictedLatency("latency", artifact.model_format, precision, artifact.latency, {}, missing)]
    return [prediction for prediction in of_format if prediction.precision == artifact.precision] or of_format


def judge_latencies(
    artifact: Artifact,
    path: Path,
    predictions: Sequence[PredictedLatency],
    external: Mapping[str, MeasuredLatency],
    rules: LatencyRules,
) -> Iterator[Check]:
    """The latency lines of one artifact.

    Args:
        artifact: the artifact.
        path: its file.
        predictions: the predictions of all tables.
        external: measurements that were made elsewhere, by format.
        rules: what is allowed.
    """
    label, measured = artifact.label, external.get(artifact.model_format)
    found = predictions_for(artifact, predictions)
    if not found and measured is not None:
        yield line_of(label, "latency", "ms", None, measured.ms, "-", "not verified", "no table predicts it")
    elif not found and predictions:
        note = f"no table of {artifact.model_format}"
        yield line_of(label, "latency", "ms", None, None, "-", "not predicted", note)
    for prediction in found:
        if prediction.precision != artifact.precision:
            note = f"the table is of {prediction.precision}; profile one with --precision {artifact.precision}"
            predicted_ms = prediction.predicted.ms
            yield line_of(label, prediction.name, "ms", predicted_ms, None, "-", "not verified", note)
        else:
            yield from judge_latency(label, prediction, _measure(artifact, path, prediction, measured), rules)


def judge_latency(
    label: str, prediction: PredictedLatency, measured: MeasuredLatency | str, rules: LatencyRules = DEFAULT_RULES
) -> Iterator[Check]:
    """The verdict on a latency, and a verdict on each budget for it.

    A measurement may differ from the prediction by 10%, and may exceed a budget by ``rules.budget_tolerance``; the
    prediction itself must be within the budget. If a limit lies within the combined uncertainty of a measurement,
    ``sqrt(noise^2 + drift^2)``, the verdict is 'not verified'. The verdict is also 'not verified' if noise or drift
    exceed 10% (drift: 25% with ``rules.allow_drift``), independent of the measured value.

    Args:
        label: the artifact's name in reports.
        prediction: the prediction of a table.
        measured: the measurement, or the reason why there is none.
        rules: what is allowed.
    """
    ms, predicted_ms = (None if isinstance(measured, str) else measured.ms), prediction.predicted.ms
    low, high = predicted_ms * (1 - LATENCY_TOLERANCE), predicted_ms * (1 + LATENCY_TOLERANCE)
    verdict, note = _judge_between(measured, low, high, rules)
    yield line_of(label, prediction.name, "ms", predicted_ms, ms, f"{LATENCY_TOLERANCE:.0%}", verdict, note)
    for name, limit in prediction.budgets.items():
        yield _judge_budget(label, name, limit, predicted_ms, measured, rules)


def _judge_budget(
    label: str, name: str, limit: float, predicted_ms: float, measured: MeasuredLatency | str, rules: LatencyRules
) -> Check:
    tolerance = rules.budget_tolerance
    ms = None if isinstance(measured, str) else measured.ms
    verdict, note = _judge_between(measured, 0.0, limit * (1 + tolerance), rules)
    if ms is not None:
        note = excess_note(ms, limit, tolerance) + note
    if predicted_ms > limit * (1 + ROUNDING):  # independent of the measurement
        verdict, note = "failed", f"the table predicts {predicted_ms:.4g} ms, over the budget; {note}"
    allowed = f"at most +{percent(tolerance)}"
    return line_of(label, name + BUDGET_SUFFIX, "ms", limit, ms, allowed, verdict, note)


def excess_note(measured: float, limit: float, tolerance: float) -> str:
    """The beginning of a note that says by how much a measurement exceeds its budget; empty if it does not.

    >>> excess_note(1.04, 1.0, 0.05)
    'over by 4%, within the tolerance of 5%; '
    """
    if measured <= limit:
        return ""
    place = "within" if measured <= limit * (1 + tolerance) else "beyond"
    return f"over by {percent(measured / limit - 1)}, {place} the tolerance of {percent(tolerance)}; "


def _judge_between(
    measured: MeasuredLatency | str, low: float, high: float, rules: LatencyRules
) -> tuple[Verdict, str]:
    """Whether a measurement is between two limits in ms with certainty, and a note."""
    if isinstance(measured, str):
        return "not verified", measured
    varies = "not known" if measured.noise is None else f"{measured.noise:.1%}"
    note = measured.source or f"noise {varies}, drift {measured.drift:+.1%}"
    max_drift = MAX_ALLOWED_DRIFT if rules.allow_drift else MAX_DRIFT
    known = measured.noise is not None and measured.runs != 1  # a single run has no deviation
    if not known and (measured.runs is None or measured.runs < MIN_RUNS):
        runs = "an unknown number of runs" if measured.runs is None else f"{measured.runs} run(s)"
        return (
            "not verified",
            f"{note}; {runs} and no deviation: give a measurement with a deviation or at least {MIN_RUNS} runs",
        )
    if measured.noise is None:
        note = f"{note}; {measured.runs} runs with unknown deviation"
    noise = measured.noise or 0.0
    if not (noise <= UNSTABLE_NOISE and abs(measured.drift) <= max_drift):
        return "not verified", f"unstable: {note}; close other programs and verify again, or profile again"
    uncertainty = noise if rules.allow_drift else math.hypot(noise, measured.drift)
    least, most = measured.ms * (1 - uncertainty), measured.ms * (1 + uncertainty)
    slack = high * ROUNDING
    if low - slack <= least and most <= high + slack:
        return "passed", note
    if least > high + slack or most < low - slack:
        return "failed", note
    return "not verified", f"the limit lies within the uncertainty of {percent(uncertainty)}: {note}"


def _measure(
    artifact: Artifact, path: Path, prediction: PredictedLatency, external: MeasuredLatency | None
) -> MeasuredLatency | str:
    """The measurement, or the reason why there is none."""
    if external is not None:
        return external
    if isinstance(prediction.probe, str):
        return prediction.probe
    if artifact.batch is None:
        return "the batch is open; export it again without --dynamic-batch to measure it"
    try:
        found = prediction.probe.measure(path)
    except DmaskError as error:  # if a phone was disconnected, earlier results must not be lost
        return f"it could not be measured: {error}"
    return found if 0 < found.ms < math.inf else f"it was measured as {found.ms} ms, which is no latency"
