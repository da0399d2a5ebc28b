"""Verification: models that pass, and errors that must be detected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, LatencyPrediction, hash_path
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.verification import Check
from export.formats.onnx.reader import OnnxModel
from export.formats.registry import FORMATS
from export.verification.latency_verdict import MeasuredLatency, PredictedLatency
from export.verification.verify import VerifyOptions, verify_artifact
from tests.export.factory import CHILD, SPACE, exported, reference
from tests.export.formats_at import ALL_FORMATS

QUANTITIES = {
    "identity", "golden pair", "max error", "mean error", "cosine", "SNR", "top-1 agreement", "accuracy (val)",
    "macs (graph)", "macs (fvcore)", "params (graph)", "params (fvcore)", "stray transposes, casts", "size",
}  # fmt: skip
PREDICTION = LatencyPrediction(
    ms=2.0, spread_ms=0.1, table_digest="t", device="phone", runtime="onnxruntime 1", precision="fp32", threads=1
)


def checks_of(artifact: Artifact, folder: Path, wanted: VerifyOptions | None = None) -> dict[str, Check]:
    return {check.quantity: check for check in verify_artifact(artifact, folder, reference(), wanted)}


def failed(checks: dict[str, Check]) -> set[str]:
    return {quantity for quantity, check in checks.items() if check.verdict != "passed"}


def edit_onnx(path: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_a_good_artifact_passes_every_check(format_name: str, tmp_path: Path) -> None:
    checks = checks_of(exported(format_name, tmp_path), tmp_path)
    assert set(checks) == QUANTITIES
    assert failed(checks) == set()


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_another_runs_weights_are_caught(format_name: str, tmp_path: Path) -> None:
    checks = checks_of(exported(format_name, tmp_path, seed=7), tmp_path)
    assert {"identity", "max error", "SNR"} <= failed(checks)
    assert checks["identity"].note == "it was made from other weights than those of this run"


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_another_childs_file_is_caught(format_name: str, tmp_path: Path) -> None:
    """The record belongs to one child, but the file to another."""
    blocks = list(CHILD.blocks)
    blocks[2] = blocks[2].model_copy(update={"hidden_width": 24})
    other = ChildSpec(name="other", resolution=16, classes=5, blocks=tuple(blocks))
    artifact = exported(format_name, tmp_path / "ours")
    stranger = exported(format_name, tmp_path / "theirs", other)
    ours, theirs = tmp_path / "ours" / artifact.path, tmp_path / "theirs" / stranger.path
    if ours.is_dir():
        shutil.rmtree(ours)
    shutil.move(theirs, ours)
    checks = checks_of(artifact, tmp_path / "ours")
    if FORMATS[artifact.model_format].crashes_on_damage:  # its runtime is not given what was not exported
        assert failed(checks) == set(checks) == {"identity"}
        assert "SHA-256 differs); not opened" in checks["identity"].note
        return
    assert {"identity", "macs (graph)", "params (graph)", "max error"} <= failed(checks)
    assert "SHA-256 differs" in checks["identity"].note
    assert "the metadata names another child" in checks["identity"].note


def test_a_flipped_weight_is_caught_and_its_block_named(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)

    def flip(model: onnx.ModelProto) -> None:
        (node,) = (n for n in model.graph.node if n.op_type == "Conv" and "blocks.2/project" in n.name)
        (tensor,) = (t for t in model.graph.initializer if t.name == node.input[1])
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] *= -1
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    edit_onnx(tmp_path / artifact.path, flip)
    checks = checks_of(artifact, tmp_path, VerifyOptions(bisect=True))
    assert {"identity", "max error", "first bad block"} <= failed(checks)
    assert "block 2 (InvertedResidual)" in checks["first bad block"].note
    assert "first bad block" not in checks_of(exported("onnx", tmp_path), tmp_path, VerifyOptions(bisect=True))


def test_bisecting_looks_at_the_image_with_the_largest_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs are wrong for only one image."""
    artifact, expected = exported("onnx", tmp_path), reference()
    looked_at: list[torch.Tensor] = []

    def off_for_one(self: OnnxModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = run(self, images)["output"]
        same = (images == expected.images[200]).flatten(1).all(1)
        return {"output": outputs + same[:, None] * torch.linspace(0, 1, outputs.shape[1])}

    run = OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", off_for_one)
    monkeypatch.setattr(
        "export.verification.verify.first_bad_block",
        lambda _model, _plain, image, _limit: looked_at.append(image) or "",
    )
    assert "first bad block" in checks_of(artifact, tmp_path, VerifyOptions(bisect=True))
    assert torch.equal(looked_at[0], expected.images[200:201])


def test_a_removed_block_is_caught(tmp_path: Path) -> None:
    """Residual block 1 is bypassed: shapes still fit, so only numerics and counts show the error."""
    artifact = exported("onnx", tmp_path)
    assert CHILD.blocks[1].residual

    def bypass(model: onnx.ModelProto) -> None:
        graph = model.graph
        (add,) = (n for n in graph.node if n.op_type == "Add" and "blocks.1" in n.name)
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == add.output[0]:
                    node.input[place] = add.input[0] if "project" not in add.input[0] else add.input[1]
        kept = [n for n in graph.node if "blocks.1" not in n.name]
        del graph.node[:]
        graph.node.extend(kept)

    edit_onnx(tmp_path / artifact.path, bypass)
    checks = checks_of(artifact, tmp_path)
    assert {"identity", "max error", "macs (graph)", "params (graph)"} <= failed(checks)


@pytest.mark.parametrize("names", [["output", "extra"], []])
def test_an_output_too_many_or_too_few_is_caught(names: list[str], tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)

    def change(model: onnx.ModelProto) -> None:
        output = model.graph.output[0]
        del model.graph.output[:]
        for name in names:
            if name != output.name:
                model.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
            value = onnx.ValueInfoProto()
            value.CopyFrom(output)
            value.name = name
            model.graph.output.append(value)

    edit_onnx(tmp_path / artifact.path, change)
    checks = checks_of(artifact, tmp_path)
    assert {"identity", "outputs"} <= failed(checks)
    found = f"{len(names)}: {', '.join(names) or 'none'}"
    assert checks["outputs"].note == f"the network has one output, but the artifact has {found}"


@pytest.mark.parametrize(
    ("key", "value", "note"),
    [
        ("dmask.class_names", '["x"]', "the metadata's 'dmask.class_names' was edited"),
        ("dmask.child_digest", "0" * 16, "the metadata's 'dmask.child_digest' was edited"),
    ],
)
def test_edited_metadata_is_caught(key: str, value: str, note: str, tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)

    def rename(model: onnx.ModelProto) -> None:
        for prop in model.metadata_props:
            if prop.key == key:
                prop.value = value

    edit_onnx(tmp_path / artifact.path, rename)
    identity = checks_of(artifact, tmp_path)["identity"]
    assert identity.verdict == "failed"
    assert note in identity.note


def test_an_edited_description_is_caught(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)

    def relabel(model: onnx.ModelProto) -> None:
        for prop in model.metadata_props:
            prop.value = prop.value.replace('"0.2', '"0.9').replace('"output": "logits"', '"output": "probabilities"')

    edit_onnx(tmp_path / artifact.path, relabel)
    identity = checks_of(artifact, tmp_path)["identity"]
    assert "the metadata has another output" in identity.note


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "its normalization differs from that of this run"),
        ({"class_names": list("edcba")}, "it has other class names than this run"),
    ],
)
def test_what_the_file_says_of_itself_is_held_against_the_run(
    fields: dict[str, object], note: str, tmp_path: Path
) -> None:
    checks = checks_of(exported("onnx", tmp_path, **fields), tmp_path)
    assert note in checks["identity"].note
    assert ("max error" in failed(checks)) == ("preprocessing" in fields)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_quantizer_that_did_nothing_is_caught(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "precision shows" not in failed(checks_of(exported("onnx", tmp_path, precision=precision), tmp_path))
    monkeypatch.setattr("export.formats.onnx.writer.InHalf", lambda model: model)
    monkeypatch.setattr("export.formats.onnx.writer._to_int8", lambda model, images: model)
    checks = checks_of(exported("onnx", tmp_path, precision=precision), tmp_path)
    assert "precision shows" in failed(checks)
    assert f"it is not {precision}" in checks["precision shows"].note
    assert checks["SNR"].note == "256 images"


def test_a_file_that_does_not_run_on_the_images_fails(tmp_path: Path) -> None:
    """The model has another resolution; the other lines still identify it."""
    other = SPACE.child(SPACE.largest()).model_copy(update={"resolution": 32})
    checks = {c.quantity: c for c in verify_artifact(exported("onnx", tmp_path, other), tmp_path, reference())}
    assert {"identity", "outputs"} <= failed(checks)
    assert "it does not run with images of (3, 16, 16)" in checks["outputs"].note
    assert "it contains another child than this run" in checks["identity"].note


def test_a_missing_artifact_is_an_error(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    (tmp_path / artifact.path).unlink()
    with pytest.raises(DmaskError, match=r"artifact '.*model.onnx' is missing; export it again"):
        checks_of(artifact, tmp_path)


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_a_truncated_artifact_is_an_error(format_name: str, tmp_path: Path) -> None:
    artifact = exported(format_name, tmp_path)
    path = tmp_path / artifact.path
    file = path if path.is_file() else max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if FORMATS[artifact.model_format].crashes_on_damage:
        assert failed(checks_of(artifact, tmp_path)) == {"identity"}
    with pytest.raises(DmaskError, match="cannot be loaded as"):
        checks_of(artifact.model_copy(update={"sha256": hash_path(path)}), tmp_path)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="255 validation images; at least 256"):
        list(verify_artifact(exported("onnx", tmp_path), tmp_path, reference(images=255)))


def test_without_a_reference_the_numbers_are_not_verified(tmp_path: Path) -> None:
    checks = {c.quantity: c for c in verify_artifact(exported("onnx", tmp_path), tmp_path, "no run")}
    assert checks["numerics"].verdict == "not verified"
    assert failed(checks) == {"numerics"}


def test_limits_can_be_replaced(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path, precision="fp16")
    assert "max error" not in failed(checks_of(artifact, tmp_path))
    checks = checks_of(artifact, tmp_path, VerifyOptions(limits={"max_error": 1e-7}))
    assert failed(checks) == {"max error"}
    assert checks["max error"].allowed == "1e-07"
    with pytest.raises(DmaskError, match="no limit 'size'; choose from max_error"):
        checks_of(artifact, tmp_path, VerifyOptions(limits={"size": 1}))


class FixedProbe:
    """A table's probe without a device, so that verdicts do not depend on the speed of this machine."""

    def measure(self, path: Path) -> MeasuredLatency:
        assert path.exists()
        return MeasuredLatency(2.05, 0.01, 0.0)


def latency_checks(artifact: Artifact, folder: Path, **wanted: object) -> dict[str, Check]:
    prediction = PredictedLatency("latency", "onnx", "fp32", PREDICTION, {"latency": 2.0}, FixedProbe())
    given = {"predictions": [prediction], **wanted}
    return {k: c for k, c in checks_of(artifact, folder, VerifyOptions(**given)).items() if "latency" in k}  # type: ignore[arg-type]


def test_latency_is_measured_where_the_table_predicts_it(tmp_path: Path) -> None:
    checks = latency_checks(exported("onnx", tmp_path), tmp_path)
    assert {k: c.verdict for k, c in checks.items()} == {"latency": "passed", "latency budget": "passed"}


def test_a_format_without_a_table_promises_nothing(tmp_path: Path) -> None:
    (check,) = latency_checks(exported("coreml", tmp_path), tmp_path).values()
    assert (check.verdict, check.note) == ("not predicted", "no table of coreml")


def test_a_table_of_the_artifacts_precision_comes_first(tmp_path: Path) -> None:
    tables = [PredictedLatency("latency", "onnx", p, PREDICTION, {}, FixedProbe()) for p in ("int8", "fp32")]
    (check,) = latency_checks(exported("onnx", tmp_path), tmp_path, predictions=tables).values()
    assert check.verdict == "passed"


def test_another_precision_than_the_tables_is_not_verified(tmp_path: Path) -> None:
    (check,) = latency_checks(exported("onnx", tmp_path, precision="int8"), tmp_path).values()
    assert (check.verdict, check.measured) == ("not verified", None)
    assert check.note == "the table is of fp32; profile one with --precision int8"


def test_a_device_that_is_not_at_hand_is_not_verified_unless_a_measurement_is_brought(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    prediction = PredictedLatency("latency", "onnx", "fp32", PREDICTION, {}, "the device cannot be reached: a phone")
    (check,) = latency_checks(artifact, tmp_path, predictions=[prediction]).values()
    assert (check.verdict, check.note) == ("not verified", "the device cannot be reached: a phone")
    external = {"onnx": MeasuredLatency(2.05, 0.02, 0.0, "measured elsewhere: perf_test")}
    (check,) = latency_checks(artifact, tmp_path, predictions=[prediction], external=external).values()
    assert (check.verdict, check.measured, check.note) == ("passed", 2.05, "measured elsewhere: perf_test")


def test_a_prediction_in_the_file_is_a_promise_too(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path, latency=PREDICTION)
    (check,) = latency_checks(artifact, tmp_path, predictions=[]).values()
    assert (check.verdict, check.predicted) == ("not verified", 2.0)
    assert check.note == "no table of phone was found; give --table or --measured FILE"
    external = {"onnx": MeasuredLatency(3.0, 0.0, 0.0, "elsewhere")}
    (check,) = latency_checks(artifact, tmp_path, predictions=[], external=external).values()
    assert check.verdict == "failed"


def test_a_measurement_that_nothing_predicted_is_no_pass(tmp_path: Path) -> None:
    external = {"onnx": MeasuredLatency(3.0, 0.0, 0.0, "elsewhere")}
    (check,) = latency_checks(exported("onnx", tmp_path), tmp_path, predictions=[], external=external).values()
    assert (check.verdict, check.measured) == ("not verified", 3.0)


def test_an_open_batch_is_not_measured(tmp_path: Path) -> None:
    check, budget = latency_checks(exported("onnx", tmp_path, batch=None), tmp_path).values()
    assert check.verdict == budget.verdict == "not verified"
    assert "without --dynamic-batch" in check.note


def test_space_of_these_tests_has_both_gates() -> None:
    assert {stage.se_gate for stage in SPACE.stages} == {"sigmoid", "hsigmoid"}
    assert np.prod(CHILD.input_shape) == 3 * 16 * 16
