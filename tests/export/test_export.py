"""Exports, run by ONNX Runtime and by the evaluator of Core ML packages, against PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.named import named_child
from dmask_mobile.records.artifact import hash_path, size_of_path
from export.deployable import Deployable
from export.formats import FORMATS, format_named
from export.numerics import compare
from export.to_coreml import quiet_coremltools
from tests.export.factory import CHILD, CLASS_NAMES, exported, reference, telling_network


@pytest.mark.parametrize("format_name", FORMATS)
def test_contract_of_every_format(format_name: str, tmp_path: Path) -> None:
    """Same scores as PyTorch, same counts as the cost models, metadata that names child and classes."""
    artifact = exported(format_name, tmp_path)
    model = FORMATS[format_name].open(tmp_path / artifact.path)
    expected = reference()
    with torch.no_grad():
        scores = expected.model(expected.images[:16])
    assert scores.std() > 0.1
    torch.testing.assert_close(
        model.scores(expected.images[:16]), scores, rtol=0, atol=1e-4 * float(scores.max() - scores.min())
    )
    assert model.counts() == (Macs().estimate(CHILD).value, Params().estimate(CHILD).value)
    metadata = model.metadata()
    assert metadata["dmask.child_digest"] == CHILD.digest()
    assert tuple(json.loads(metadata["dmask.class_names"])) == CLASS_NAMES
    assert artifact.sha256 == hash_path(tmp_path / artifact.path)
    assert artifact.size_bytes == size_of_path(tmp_path / artifact.path)


@pytest.mark.parametrize("format_name", FORMATS)
def test_published_network_exports(format_name: str, tmp_path: Path) -> None:
    child = named_child("fbnetv2_f1")
    artifact = exported(format_name, tmp_path, child)
    model = FORMATS[format_name].open(tmp_path / artifact.path)
    expected = reference(child, images=2)
    with torch.no_grad():
        scores = expected.model(expected.images)
    assert (scores[0] - scores[1]).abs().max() > 0.1  # the input matters
    torch.testing.assert_close(
        model.scores(expected.images), scores, rtol=0, atol=1e-4 * float(scores.max() - scores.min())
    )
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)


def test_onnx_has_opset_17_batch_1_and_no_batch_norm(tmp_path: Path) -> None:
    model = onnx.load(tmp_path / exported("onnx", tmp_path).path)
    assert model.opset_import[0].version >= 17
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_coreml_is_an_mlprogram_with_float32_in_and_out(tmp_path: Path) -> None:
    path = tmp_path / exported("coreml", tmp_path).path
    with quiet_coremltools() as coremltools:
        spec = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    assert spec.WhichOneof("Type") == "mlProgram"
    types = [f.type.multiArrayType.dataType for f in (*spec.description.input, *spec.description.output)]
    assert types == [65568, 65568]  # ArrayFeatureType.FLOAT32


def test_normalization_is_that_of_the_images() -> None:
    model = Deployable(torch.nn.Identity(), (0.5, 0.25), (0.5, 2.0))
    image = torch.tensor([1.0, 1.25]).view(1, 2, 1, 1)
    assert model(image).flatten().tolist() == [1.0, 0.5]


def test_unknown_coreml_operation_is_an_error(tmp_path: Path) -> None:
    class WithTanh(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x)

    from export.coreml_evaluator import CoreMLProgram
    from export.to_coreml import write_coreml

    write_coreml(WithTanh(), (1, 3, 4, 4), tmp_path / "tanh.mlpackage", {})
    program = CoreMLProgram(tmp_path / "tanh.mlpackage")
    with pytest.raises(DmaskError, match="operation 'tanh' is unknown to the evaluator"):
        program(torch.zeros(1, 3, 4, 4))


def test_format_whose_package_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)  # what Python itself does for a blocked import
    with pytest.raises(DmaskError, match=r"format coreml needs the package coremltools.*; pip install coremltools"):
        format_named("coreml")


def test_unknown_format() -> None:
    with pytest.raises(DmaskError, match="no export format 'tflite'; choose from onnx, coreml"):
        format_named("tflite")


def test_compare_counts_nan_as_infinitely_wrong_and_refuses_nothing() -> None:
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([1, 1])
    assert compare(scores, scores, labels) == (0.0, 1.0, 0.5, 0.5)
    assert compare(scores, scores + 0.25, labels).relative_error == 0.25
    assert compare(scores, scores.clone().fill_(torch.nan), labels).relative_error == float("inf")
    with pytest.raises(DmaskError, match="no outputs to compare"):
        compare(scores[:0], scores[:0], labels[:0])
    with pytest.raises(DmaskError, match=r"must have the shape \(2, 2\), found \(2, 1\)"):
        compare(scores, scores[:, :1], labels)


def test_telling_network_depends_on_its_seed() -> None:
    weights = [telling_network(CHILD, seed).blocks[-1].linear.weight for seed in (0, 1)]
    assert not torch.equal(*weights)
