"""Differences between outputs: a good int8 model passes in spite of one unusual image; a bad quantization fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dmask_mobile.records.artifact import Artifact
from export.verification.numerics import LIMITS, compare
from export.verification.verify import verify_artifact
from tests.export.factory import exported, reference

QUALITY = {"max error", "mean error", "cosine", "SNR", "top-1 agreement", "accuracy (val)"}
Stored = dict[str, onnx.TensorProto]


def test_one_odd_image_of_256_has_no_vote_on_the_cosine_but_one_in_ten_has() -> None:
    reference_NK = torch.randn(256, 10, generator=torch.Generator().manual_seed(0))
    found_NK = reference_NK.clone()
    found_NK[7] *= -1
    assert compare(reference_NK, found_NK, None).cosine > 0.99999
    assert compare(reference_NK, found_NK, None).worst_image == 7
    found_NK[:26] *= -1
    assert compare(reference_NK, found_NK, None).cosine < LIMITS["int8"].min_cosine


def test_a_broken_output_is_the_worst_image_and_without_labels_there_is_no_accuracy() -> None:
    reference_NK = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    found_NK = reference_NK + 0.1
    found_NK[5, 1] = torch.nan
    found = compare(reference_NK, found_NK, None)
    assert (found.worst_image, found.cosine, found.accuracy, found.reference_accuracy) == (5, -1.0, None, None)


def set_values(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def stored(model: onnx.ModelProto) -> Stored:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def weights(model: onnx.ModelProto) -> list[tuple[onnx.TensorProto, onnx.TensorProto]]:
    """Stored int8 weights and their scales, in the order of the graph."""
    tensors = stored(model)
    return [
        (tensors[node.input[0]], tensors[node.input[1]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors
        if tensors[node.input[0]].data_type == onnx.TensorProto.INT8
    ]


def wrong_scale(model: onnx.ModelProto) -> None:
    _, scale = weights(model)[-1]
    set_values(scale, numpy_helper.to_array(scale) * np.float32(2))


def clipped_calibration(model: onnx.ModelProto) -> None:
    tensors = stored(model)
    for name in {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}:
        set_values(tensors[name], numpy_helper.to_array(tensors[name]) * np.float32(0.5))


def swapped_zero_point(model: onnx.ModelProto) -> None:
    """The last activation's, where it is turned back into floats."""
    activations = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in stored(model)]
    zero_point = numpy_helper.to_array(stored(model)[activations[-1].input[2]])
    moved = numpy_helper.from_array((zero_point.astype(int) + 128).astype(zero_point.dtype), "swapped")
    model.graph.initializer.append(moved)
    activations[-1].input[2] = "swapped"


def per_tensor_with_outliers(model: onnx.ModelProto) -> None:
    """One scale for each layer, four times as coarse as its largest weight needs."""
    for tensor, scale in weights(model):
        levels = numpy_helper.to_array(tensor)
        scales = numpy_helper.to_array(scale).reshape(-1, *(1,) * (levels.ndim - 1))
        step = np.abs(levels * scales).max() * 4 / 127
        coarse = np.round(np.round(levels * scales / step) * step / scales).clip(-127, 127)
        set_values(tensor, coarse.astype(np.int8))


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("int8")
    return exported("onnx", folder, precision="int8"), folder


def failed(artifact: Artifact, folder: Path) -> set[str]:
    checks = verify_artifact(artifact, folder, reference())
    return {check.quantity for check in checks if check.quantity in QUALITY and check.verdict != "passed"}


def test_a_good_quantization_passes(int8: tuple[Artifact, Path]) -> None:
    assert failed(*int8) == set()


@pytest.mark.parametrize("spoil", [wrong_scale, clipped_calibration, swapped_zero_point, per_tensor_with_outliers])
def test_a_bad_quantization_is_caught(
    spoil: Callable[[onnx.ModelProto], None], int8: tuple[Artifact, Path], tmp_path: Path
) -> None:
    artifact, folder = int8
    model = onnx.load(folder / artifact.path)
    spoil(model)
    onnx.save(model, tmp_path / artifact.path)
    assert failed(artifact, tmp_path) >= {"SNR"}
