"""Verdicts on latencies and budgets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import LatencyPrediction
from dmask_mobile.records.verification import Check
from export.verification.latency_verdict import (
    LatencyRules,
    MeasuredLatency,
    PredictedLatency,
    judge_latencies,
    judge_latency,
)
from tests.export.factory import exported


class NoProbe:
    def measure(self, path: Path) -> MeasuredLatency:
        raise AssertionError("verdicts need no device")


def predicted_latency(predicted_ms: float, **budgets: float) -> PredictedLatency:
    prediction = LatencyPrediction(
        ms=predicted_ms, spread_ms=0, table_digest="t", device="d", runtime="r", precision="fp32", threads=1
    )
    return PredictedLatency("latency", "onnx", "fp32", prediction, budgets, NoProbe())


def checks_of(
    measured: MeasuredLatency | str, predicted: float = 10, *, allow_drift: bool = False, **budgets: float
) -> dict[str, Check]:
    rules = LatencyRules(allow_drift=allow_drift)
    return {c.quantity: c for c in judge_latency("onnx", predicted_latency(predicted, **budgets), measured, rules)}


@pytest.mark.parametrize(
    ("ms", "noise", "drift", "verdict"),
    [
        (10.9, 0.0, 0.0, "passed"),  # within 10%
        (11.0, 0.0, 0.0, "passed"),
        (11.1, 0.0, 0.0, "failed"),
        (8.9, 0.0, 0.0, "failed"),  # too fast is a wrong prediction as well
        (12.9, 0.09, 0.0, "failed"),  # three times its noise is no excuse
        (11.1, 0.04, 0.0, "not verified"),  # with its noise it may be either
        (10.9, 0.04, 0.0, "not verified"),
        (10.5, 0.04, 0.0, "passed"),  # 10.92 at most
        (10.9, 0.0, 0.05, "not verified"),
        (10.9, 0.0, -0.05, "not verified"),
        (10.0, 0.0, 0.11, "not verified"),  # the device is not what it was
        (10.0, 0.11, 0.0, "not verified"),  # too noisy, even where it agrees
    ],
)
def test_latency_verdict(ms: float, noise: float, drift: float, verdict: str) -> None:
    assert checks_of(MeasuredLatency(ms, noise, drift))["latency"].verdict == verdict


@pytest.mark.parametrize(
    ("ms", "drift", "verdict"),
    [(10.9, 0.2, "passed"), (10.9, -0.2, "passed"), (11.9, 0.2, "failed"), (10.0, 0.3, "not verified")],
)
def test_allowed_drift_is_no_uncertainty_and_no_tolerance(ms: float, drift: float, verdict: str) -> None:
    """The current latency of the device must still be within 10%."""
    assert checks_of(MeasuredLatency(ms, 0.0, drift), allow_drift=True)["latency"].verdict == verdict


SHARES = st.floats(0, 0.4)
MEASURED = st.builds(MeasuredLatency, st.floats(5, 20), SHARES, st.floats(-0.4, 0.4))


@settings(max_examples=300)
@given(MEASURED, SHARES, SHARES, st.sampled_from((-1, 1)), st.floats(9, 12), st.booleans())
def test_noise_and_drift_never_help(
    measured: MeasuredLatency, noise: float, drift: float, sign: int, budget: float, allow_drift: bool
) -> None:
    """For any measurement, more noise or drift never changes another verdict to 'passed'."""
    assert measured.noise is not None
    worse = MeasuredLatency(measured.ms, measured.noise + noise, sign * (abs(measured.drift) + drift))
    before = checks_of(measured, allow_drift=allow_drift, latency=budget)
    after = checks_of(worse, allow_drift=allow_drift, latency=budget)
    for quantity, check in after.items():
        assert check.verdict != "passed" or before[quantity].verdict == "passed"
        assert check.allowed == before[quantity].allowed


@pytest.mark.parametrize(
    ("predicted", "measured", "verdict", "note"),
    [
        (10, MeasuredLatency(10.0, 0.0, 0.0), "passed", "noise 0.0%, drift +0.0%"),
        (10, MeasuredLatency(10.4, 0.0, 0.0), "passed", "over by 4%, within the tolerance of 5%; noise 0.0%"),
        (10, MeasuredLatency(10.6, 0.0, 0.0), "failed", "over by 6%, beyond the tolerance of 5%; noise 0.0%"),
        (10, MeasuredLatency(12.9, 0.1, 0.0), "failed", "over by 29%, beyond the tolerance of 5%; noise 10.0%"),
        (10, MeasuredLatency(10.4, 0.03, 0.0), "not verified", "over by 4%, within the tolerance of 5%; the limit"),
        (10, MeasuredLatency(10.5, 0.2, 0.0), "not verified", "over by 5%, within the tolerance of 5%; unstable"),
        (10, "the device cannot be reached: a phone", "not verified", "the device cannot be reached: a phone"),
        (10.1, MeasuredLatency(9.0, 0.0, 0.0), "failed", "the table predicts 10.1 ms, over the budget; noise 0.0%"),
        (10.1, MeasuredLatency(9.0, 0.9, 0.0), "failed", "the table predicts 10.1 ms, over the budget; unstable"),
        (10.1, "no phone", "failed", "the table predicts 10.1 ms, over the budget; no phone"),
    ],
)  # fmt: skip
def test_a_budget_is_kept_by_the_prediction_and_within_a_tolerance_by_the_device(
    predicted: float, measured: MeasuredLatency | str, verdict: str, note: str
) -> None:
    check = checks_of(measured, predicted, latency=10.0)["latency budget"]
    assert check.verdict == verdict
    assert check.note.startswith(note)
    assert (check.predicted, check.allowed) == (10.0, "at most +5%")


def test_the_tolerance_of_a_budget_is_the_users() -> None:
    measured, rules = MeasuredLatency(10.4, 0.0, 0.0), LatencyRules(budget_tolerance=0.03)
    _, check = judge_latency("onnx", predicted_latency(10, latency=10.0), measured, rules)
    assert (check.verdict, check.allowed) == ("failed", "at most +3%")
    assert check.note.startswith("over by 4%, beyond the tolerance of 3%")


def test_two_budgets_of_one_latency_have_a_line_each() -> None:
    budgets = {"latency": 9.0, "latency@pixel": 11.0}
    found = checks_of(MeasuredLatency(9.9, 0.0, 0.0), 9.9, **budgets)
    assert {name: check.verdict for name, check in found.items()} == {
        "latency": "passed", "latency budget": "failed", "latency@pixel budget": "passed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "verdict", "note"),
    [
        (
            None,
            "not verified",
            "an unknown number of runs and no deviation: give a measurement with a deviation or at least 10",
        ),
        (1, "not verified", "1 run(s) and no deviation"),
        (9, "not verified", "9 run(s) and no deviation"),
        (10, "passed", "10 runs with unknown deviation"),
    ],
)
def test_an_unknown_deviation_is_not_a_deviation_of_zero(runs: int | None, verdict: str, note: str) -> None:
    check = checks_of(MeasuredLatency(10.0, None, 0.0, "perf_test", runs))["latency"]
    assert check.verdict == verdict
    assert check.note.startswith(f"perf_test; {note}")


def test_a_deviation_of_one_run_is_none() -> None:
    assert checks_of(MeasuredLatency(10.0, 0.0, 0.0, "a record", runs=1))["latency"].verdict == "not verified"
    assert checks_of(MeasuredLatency(10.0, 0.0, 0.0, "a record", runs=2))["latency"].verdict == "passed"


def test_a_device_that_is_lost_costs_its_latency_alone(tmp_path: Path) -> None:
    class Lost:
        def measure(self, path: Path) -> MeasuredLatency:
            raise DmaskError("the phone is gone", "plug it in again")

    artifact = exported("onnx", tmp_path)
    prediction = predicted_latency(10, latency=12)._replace(probe=Lost())
    check, budget = judge_latencies(artifact, tmp_path / artifact.path, [prediction], {}, LatencyRules())
    assert (check.verdict, check.measured) == (budget.verdict, budget.measured) == ("not verified", None)
    assert check.note == budget.note == "it could not be measured: the phone is gone; plug it in again"


@pytest.mark.parametrize("ms", [0.0, float("nan"), float("inf")])
def test_a_number_that_is_no_latency_is_not_verified(ms: float, tmp_path: Path) -> None:
    class Broken:
        def measure(self, path: Path) -> MeasuredLatency:
            return MeasuredLatency(ms, 0.0, 0.0)

    artifact = exported("onnx", tmp_path)
    prediction = predicted_latency(10, latency=12)._replace(probe=Broken())
    for check in judge_latencies(artifact, tmp_path / artifact.path, [prediction], {}, LatencyRules()):
        assert (check.verdict, check.measured) == ("not verified", None)
        assert check.note == f"it was measured as {ms} ms, which is no latency"
