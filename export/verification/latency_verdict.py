"""The verdict on an artifact's latency: what a table predicted, what was measured, what may lie between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, LatencyPrediction, Precision
from dmask_mobile.records.verification import Check, Verdict

MIN_LATENCY_TOLERANCE = 0.10
UNSTABLE_NOISE = 0.10
MAX_DRIFT, MAX_ALLOWED_DRIFT = 0.10, 0.25  # without and with leave to drift


class MeasuredLatency(NamedTuple):
    """Typical milliseconds, their relative noise, the device's relative drift since the table was made.

    ``source``: where the figure came from, when it was not measured here and now.
    """

    ms: float
    noise: float
    drift: float
    source: str = ""


class LatencyProbe(Protocol):
    """Measures on a table's device."""

    def measure(self, path: Path) -> MeasuredLatency:
        """The artifact's latency now."""
        ...


class PredictedLatency(NamedTuple):
    """A table's word on the child's latency in one format and precision.

    ``name``: as budgets name it; ``budget_ms``: None without a budget; ``probe``: what measures, or why nothing can.
    """

    name: str
    model_format: str
    precision: Precision
    predicted: LatencyPrediction
    budget_ms: float | None
    probe: LatencyProbe | str


def judge_latencies(
    artifact: Artifact,
    path: Path,
    predictions: Sequence[PredictedLatency],
    external: Mapping[str, MeasuredLatency],
    allow_drift: bool,
) -> Iterator[Check]:
    """The latency lines of one artifact.

    Args:
        artifact: the artifact.
        path: its file.
        predictions: those of all tables.
        external: measurements made elsewhere, by format.
        allow_drift: judge although the device has drifted by more than 10%.
    """
    fitting = [prediction for prediction in predictions if prediction.model_format == artifact.model_format]
    fitting = [prediction for prediction in fitting if prediction.precision == artifact.precision] or fitting
    if not fitting and artifact.latency is not None:
        missing = f"no table of {artifact.latency.device} at hand; give --table, or --measured FILE"
        fitting = [_prediction_in(artifact, missing)]
    measured = external.get(artifact.model_format)
    if not fitting and measured is not None:
        yield _line(artifact.label, "latency", None, measured.ms, "-", "not verified", "no table predicts it")
    elif not fitting and predictions:
        yield _line(artifact.label, "latency", None, None, "-", "not predicted", f"no table of {artifact.model_format}")
    for prediction in fitting:
        found = _measure(artifact, path, prediction, measured)
        if isinstance(found, str):
            yield _line(artifact.label, prediction.name, prediction.predicted.ms, None, "-", "not verified", found)
        else:
            yield from judge_latency(artifact.label, prediction, found, allow_drift)


def judge_latency(
    label: str, prediction: PredictedLatency, measured: MeasuredLatency, allow_drift: bool = False
) -> Iterator[Check]:
    """The verdict on a latency, and on the budget that it must keep.

    Allowed is the largest of 10%, three times the noise, and the drift of the table's networks. A measurement with
    more than 10% noise, or on a device that has drifted by more than 10% (25% with ``allow_drift``), shows nothing:
    'not verified'.
    """
    tolerance = max(MIN_LATENCY_TOLERANCE, 3 * measured.noise, abs(measured.drift))
    stable = measured.noise <= UNSTABLE_NOISE and abs(measured.drift) <= (
        MAX_ALLOWED_DRIFT if allow_drift else MAX_DRIFT
    )
    note = measured.source or f"noise {measured.noise:.1%}, drift {measured.drift:+.1%}"
    if not stable:
        note = f"unstable: {note}; close other programs and verify again, or profile again"

    def verdict(kept: bool) -> Verdict:
        return "not verified" if not stable else "passed" if kept else "failed"

    predicted_ms = prediction.predicted.ms
    close = abs(measured.ms - predicted_ms) <= tolerance * predicted_ms
    yield _line(label, prediction.name, predicted_ms, measured.ms, f"{tolerance:.0%}", verdict(close), note)
    if prediction.budget_ms is not None:
        kept = predicted_ms <= prediction.budget_ms and measured.ms <= prediction.budget_ms * (1 + tolerance)
        allowed = f"at most +{tolerance:.0%}"
        if predicted_ms > prediction.budget_ms:
            note = f"the table predicts {predicted_ms:.4g} ms, over the budget; {note}"
        yield _line(label, f"{prediction.name} budget", prediction.budget_ms, measured.ms, allowed, verdict(kept), note)


def _prediction_in(artifact: Artifact, missing: str) -> PredictedLatency:
    """The prediction that travels in the artifact."""
    assert artifact.latency is not None
    return PredictedLatency(
        "latency", artifact.model_format, artifact.latency.precision, artifact.latency, None, missing
    )


def _measure(
    artifact: Artifact, path: Path, prediction: PredictedLatency, external: MeasuredLatency | None
) -> MeasuredLatency | str:
    """The measurement, or why there is none."""
    if prediction.precision != artifact.precision:
        return f"the table is of {prediction.precision}; profile one with --precision {artifact.precision}"
    if external is not None:
        return external
    if isinstance(prediction.probe, str):
        return prediction.probe
    if artifact.batch is None:
        return "the batch is open; export it again without --dynamic-batch to measure it"
    try:
        return prediction.probe.measure(path)
    except DmaskError as error:  # a phone that was unplugged must not cost what was verified before
        return f"it could not be measured: {error}"


def _line(
    label: str,
    quantity: str,
    predicted: float | None,
    measured: float | None,
    allowed: str,
    verdict: Verdict,
    note: str,
) -> Check:
    return Check(
        artifact=label,
        quantity=quantity,
        unit="ms",
        predicted=predicted,
        measured=measured,
        allowed=allowed,
        verdict=verdict,
        note=note,
    )
