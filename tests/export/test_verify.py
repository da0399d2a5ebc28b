"""Verification: what passes, and everything that must not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate
from dmask_mobile.records.verification import Check
from export.formats import FORMATS
from export.verify import LatencyPromise, MeasuredLatency, judge_latency, verify_artifact
from tests.export.factory import CHILD, SPACE, exported, reference


def verdicts(checks: list[Check]) -> dict[str, str]:
    return {check.quantity: check.verdict for check in checks}


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_good_artifact_passes_every_check(format_name: str, tmp_path: Path) -> None:
    checks = list(verify_artifact(exported(format_name, tmp_path), tmp_path, reference()))
    assert set(verdicts(checks).values()) == {"passed"}
    assert set(verdicts(checks)) == {
        "identity", "numeric error", "top-1 agreement", "accuracy", "macs (graph)", "macs (fvcore)",
        "params (graph)", "params (fvcore)", "size",
    }  # fmt: skip


@pytest.mark.parametrize("format_name", FORMATS)
def test_another_childs_weights_are_caught(format_name: str, tmp_path: Path) -> None:
    checks = list(verify_artifact(exported(format_name, tmp_path, seed=7), tmp_path, reference()))
    assert verdicts(checks)["numeric error"] == "failed"


@pytest.mark.parametrize("format_name", FORMATS)
def test_another_child_is_caught(format_name: str, tmp_path: Path) -> None:
    blocks = list(CHILD.blocks)
    blocks[2] = blocks[2].model_copy(update={"hidden_width": 24})
    other = ChildSpec(name="other", resolution=16, classes=5, blocks=tuple(blocks))
    checks = list(verify_artifact(exported(format_name, tmp_path, other), tmp_path, reference()))
    found = verdicts(checks)
    assert found["identity"] == found["macs (graph)"] == found["params (graph)"] == "failed"
    (identity,) = (check for check in checks if check.quantity == "identity")
    assert "the metadata names another child" in identity.note


def test_one_changed_weight_is_caught(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    path = tmp_path / artifact.path
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    found = verdicts(list(verify_artifact(artifact, tmp_path, reference())))
    assert found["identity"] == found["numeric error"] == "failed"


def test_edited_metadata_is_caught(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    path = tmp_path / artifact.path
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"dmask.child_digest": CHILD.digest(), "dmask.class_names": json.dumps(["x"])})
    onnx.save(model, path)
    checks = list(verify_artifact(artifact, tmp_path, reference()))
    (identity,) = (check for check in checks if check.quantity == "identity")
    assert identity.verdict == "failed"
    assert "other class names" in identity.note


def test_a_missing_artifact_is_an_error(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    (tmp_path / artifact.path).unlink()
    with pytest.raises(DmaskError, match=r"artifact '.*model.onnx' is missing; export it again"):
        list(verify_artifact(artifact, tmp_path, reference()))


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_truncated_artifact_is_an_error(format_name: str, tmp_path: Path) -> None:
    artifact = exported(format_name, tmp_path)
    path = tmp_path / artifact.path
    file = path if path.is_file() else max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DmaskError, match="does not load as"):
        list(verify_artifact(artifact, tmp_path, reference()))


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="255 validation images, at least 256"):
        list(verify_artifact(exported("onnx", tmp_path), tmp_path, reference(images=255)))


class FixedProbe:
    """A table's probe with the device left out: verdicts are tested, not this machine's mood."""

    model_format = "onnx"

    def predict(self, child: ChildSpec) -> CostEstimate:
        return CostEstimate(cost="latency", value=2.0, unit="ms")

    def measure(self, path: Path) -> MeasuredLatency:
        assert path.exists()
        return MeasuredLatency(2.1, 0.01, 0.0)


def latency_verdicts(predicted: float, ms: float, noise: float, drift: float, budget: float | None) -> list[str]:
    promise = LatencyPromise("latency", FixedProbe(), budget)
    return [c.verdict for c in judge_latency(promise, predicted, MeasuredLatency(ms, noise, drift))]


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
    promise = LatencyPromise("latency", FixedProbe(), None)
    (check,) = judge_latency(promise, 10, MeasuredLatency(ms, 0.0, drift), allow_drift=True)
    assert check.verdict == verdict


def test_budget_is_held_by_the_prediction_and_within_tolerance_by_the_device() -> None:
    assert latency_verdicts(10, 10.5, 0, 0, 10.0) == ["passed", "passed"]
    assert latency_verdicts(10, 10.5, 0, 0, 9.9) == ["passed", "failed"]
    assert latency_verdicts(10, 12.0, 0, 0, 10.0) == ["failed", "failed"]
    assert latency_verdicts(10, 10.5, 0.2, 0, 10.0) == ["not verified", "not verified"]


def test_latency_is_checked_for_the_format_that_the_table_predicts(tmp_path: Path) -> None:
    expected = reference()
    of_onnx = verdicts(
        list(
            verify_artifact(
                exported("onnx", tmp_path), tmp_path, expected, [LatencyPromise("latency", FixedProbe(), 2.0)]
            )
        )
    )
    assert of_onnx["latency"] == of_onnx["latency budget"] == "passed"
    of_coreml = verdicts(
        list(
            verify_artifact(
                exported("coreml", tmp_path), tmp_path, expected, [LatencyPromise("latency", FixedProbe(), 2.0)]
            )
        )
    )
    assert "latency" not in of_coreml


def test_space_of_these_tests_has_both_gates() -> None:
    assert {stage.se_gate for stage in SPACE.stages} == {"sigmoid", "hsigmoid"}
