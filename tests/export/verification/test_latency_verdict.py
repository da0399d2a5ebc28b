"""Verdicts on latencies and budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import LatencyPrediction
from export.verification.latency_verdict import MeasuredLatency, PredictedLatency, judge_latencies, judge_latency
from tests.export.factory import exported


class NoProbe:
    def measure(self, path: Path) -> MeasuredLatency:
        raise AssertionError("verdicts need no device")


def predicted_latency(predicted_ms: float, budget_ms: float | None) -> PredictedLatency:
    prediction = LatencyPrediction(
        ms=predicted_ms, spread_ms=0, table_digest="t", device="d", runtime="r", precision="fp32", threads=1
    )
    return PredictedLatency("latency", "onnx", "fp32", prediction, budget_ms, NoProbe())


def latency_verdicts(predicted: float, ms: float, noise: float, drift: float, budget: float | None) -> list[str]:
    return [
        c.verdict
        for c in judge_latency("onnx", predicted_latency(predicted, budget), MeasuredLatency(ms, noise, drift))
    ]


@pytest.mark.parametrize(
    ("predicted", "ms", "noise", "drift", "verdict"),
    [
        (10, 10.9, 0.0, 0.0, "passed"),  # within 10%
        (10, 11.1, 0.0, 0.0, "failed"),
        (10, 8.9, 0.0, 0.0, "failed"),  # too fast is a wrong prediction as well
        (10, 11.1, 0.04, 0.0, "passed"),  # within three times the noise
        (10, 10.0, 0.0, 0.11, "not verified"),  # the device is not what it was
        (10, 10.0, 0.11, 0.0, "not verified"),  # too noisy, even where it agrees
    ],
)
def test_latency_verdict(predicted: float, ms: float, noise: float, drift: float, verdict: str) -> None:
    assert latency_verdicts(predicted, ms, noise, drift, None) == [verdict]


@pytest.mark.parametrize(
    ("ms", "drift", "verdict"),
    [(11.9, 0.2, "passed"), (11.9, -0.2, "passed"), (12.1, 0.2, "failed"), (10.0, 0.3, "not verified")],
)
def test_latency_verdict_with_leave_to_drift(ms: float, drift: float, verdict: str) -> None:
    (check,) = judge_latency("onnx", predicted_latency(10, None), MeasuredLatency(ms, 0.0, drift), allow_drift=True)
    assert check.verdict == verdict


def test_budget_is_held_by_the_prediction_and_within_tolerance_by_the_device() -> None:
    assert latency_verdicts(10, 10.5, 0, 0, 10.0) == ["passed", "passed"]
    assert latency_verdicts(10, 10.5, 0, 0, 9.9) == ["passed", "failed"]
    assert latency_verdicts(10, 12.0, 0, 0, 10.0) == ["failed", "failed"]
    assert latency_verdicts(10, 10.5, 0.2, 0, 10.0) == ["not verified", "not verified"]


def test_a_prediction_over_the_budget_is_named_as_the_cause() -> None:
    _, budget = judge_latency("onnx", predicted_latency(10, 9.9), MeasuredLatency(9.8, 0.0, 0.0))
    assert budget.verdict == "failed"
    assert budget.note.startswith("the table predicts 10 ms, over the budget; ")


def test_a_device_that_is_lost_costs_its_latency_alone(tmp_path: Path) -> None:
    class Lost:
        def measure(self, path: Path) -> MeasuredLatency:
            raise DmaskError("the phone is gone", "plug it in again")

    artifact = exported("onnx", tmp_path)
    prediction = predicted_latency(10, 12)._replace(probe=Lost())
    (check,) = judge_latencies(artifact, tmp_path / artifact.path, [prediction], {}, allow_drift=False)
    assert (check.verdict, check.measured) == ("not verified", None)
    assert check.note == "it could not be measured: the phone is gone; plug it in again"
