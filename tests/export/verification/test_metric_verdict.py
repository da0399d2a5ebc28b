"""The verdict on memory and energy, from several measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact
from export.verification.metric_verdict import MetricProbe, PredictedMetric, judge_metrics
from tests.export.factory import exported

MODEL = Path("model.onnx")


class Probe:
    def __init__(self, *values: float) -> None:
        self.values = values

    def meter(self, metric: str, path: Path) -> tuple[float, ...]:
        assert (metric, path) == ("memory", MODEL)
        if not self.values:
            raise DmaskError("the phone is gone", "plug it in")
        return self.values


class Silent:
    def meter(self, metric: str, path: Path) -> tuple[float, ...]:
        return ()


def predicted(probe: MetricProbe | str, precision: str = "fp32", **budgets: float) -> PredictedMetric:
    return PredictedMetric("memory", "memory@a", "bytes", "onnx", precision, 100.0, 0.15, budgets, probe)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported("onnx", tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize(
    ("values", "limit", "verdicts"),
    [
        ((98.0, 100.0, 101.0), 100.0, ("passed", "passed")),
        ((120.0, 121.0, 122.0), 120.0, ("failed", "passed")),
        ((114.0, 114.0, 116.0), 110.0, ("not verified", "not verified")),  # the limits 115 and 115.5 lie between them
        ((100.0, 100.0, 100.0), 90.0, ("passed", "failed")),  # the table predicts more than the budget
    ],
)
def test_every_measurement_is_within_the_limits(
    values: tuple[float, ...], limit: float, verdicts: tuple[str, str], artifact: Artifact
) -> None:
    checks = list(judge_metrics(artifact, MODEL, [predicted(Probe(*values), memory=limit)], 0.05))
    assert [check.quantity for check in checks] == ["memory@a", "memory budget"]
    assert tuple(check.verdict for check in checks) == verdicts


def test_what_cannot_be_measured_is_not_verified_where_a_budget_names_it(artifact: Artifact) -> None:
    for probe, precision, reason in (
        ("no device", "fp32", "no device"),
        (Silent(), "fp32", "the device gave no measurement"),
        (Probe(0.0, 0.0, 0.0), "fp32", "a measurement must be a number above 0, got 0.0, 0.0, 0.0"),
        (Probe(90.0, float("nan")), "fp32", "a measurement must be a number above 0, got 90.0, nan"),
        (Probe(), "fp32", "it could not be measured: the phone is gone"),
        (Probe(1.0), "int8", "the table is of int8"),
    ):
        assert not list(judge_metrics(artifact, MODEL, [predicted(probe, precision)], 0.05))
        checks = list(judge_metrics(artifact, MODEL, [predicted(probe, precision, memory=100.0)], 0.05))
        assert {check.verdict for check in checks} == {"not verified"}
        assert all(reason in check.note for check in checks)


@pytest.mark.parametrize(
    ("values", "tolerance", "verdict", "note"),
    [
        ((104.0, 104.0), 0.05, "passed", "over by 4%, within the tolerance of 5%; 2 measurements, 0.0% apart"),
        ((100.3, 100.3), 0.004, "passed", "over by 0.30%, within the tolerance of 0.40%; 2 measurements"),
        ((108.0, 108.0), 0.05, "failed", "over by 8%, beyond the tolerance of 5%; 2 measurements"),
        ((99.0, 99.0), 0.05, "passed", "2 measurements"),
        ((104.0, 106.0, 107.0), 0.05, "not verified", "over by 6%, beyond the tolerance of 5%; the limit lies between"),
    ],
)
def test_a_budget_that_is_exceeded_says_by_how_much(
    values: tuple[float, ...], tolerance: float, verdict: str, note: str, artifact: Artifact
) -> None:
    _, check = judge_metrics(artifact, MODEL, [predicted(Probe(*values), memory=100.0)], tolerance)
    assert check.verdict == verdict
    assert check.note.startswith(note)


def test_a_prediction_over_the_budget_keeps_the_note_of_the_measurement(artifact: Artifact) -> None:
    _, check = judge_metrics(artifact, MODEL, [predicted(Probe(98.0, 98.0), memory=90.0)], 0.0)
    assert check.allowed == "at most +0%"
    assert check.note.startswith("the table predicts 100 bytes, over the budget; over by 9%, beyond the tolerance of")
