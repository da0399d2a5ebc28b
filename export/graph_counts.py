"""Multiply-adds and weights counted on exported graphs, independently of PyTorch and of the cost models."""

from __future__ import annotations

import warnings
from math import prod
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import nn

from dmask_mobile.errors import DmaskError
from export.coreml_evaluator import CoreMLProgram


class Counts(NamedTuple):
    """Multiply-adds for one image, and weights, of convolutions and linear layers."""

    macs: int
    params: int


def count_onnx(path: Path) -> Counts:
    """The counts of an ONNX file, from shapes that onnx infers.

    Raises:
        DmaskError: for a matrix product whose weight is not in the file.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:  # tensors that are equal are stored once and passed on by Identity
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    macs = params = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        if node.input[1] not in weights:
            raise DmaskError(f"'{path}': the weight of {node.op_type} '{node.name}' is computed, not stored")
        size = prod(weights[node.input[1]])
        pixels = prod(shapes[node.output[0]][2:]) if node.op_type == "Conv" else 1
        params += size
        macs += size * pixels
    return Counts(macs, params)


def count_coreml(program: CoreMLProgram) -> Counts:
    """The counts of a Core ML program."""
    macs = params = 0
    for operation in program.function.operations:
        if operation.op_type in ("conv", "linear"):
            size = prod(operation.inputs["weight"].shape)
            params += size
            macs += size * (prod(operation.outputs[0].shape[2:]) if operation.op_type == "conv" else 1)
    return Counts(macs, params)


def count_fvcore(module: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """fvcore's counts, by operator: its total would add norms and pooling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit throughout, which torch now calls deprecated
        from fvcore.nn import FlopCountAnalysis, parameter_count

        analysis = FlopCountAnalysis(module.eval(), torch.zeros(input_shape)).unsupported_ops_warnings(False)
        by_operator = analysis.uncalled_modules_warnings(False).by_operator()
        all_params = parameter_count(module)
    layers = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return Counts(
        int(by_operator["conv"] + by_operator["linear"]), sum(int(all_params[f"{name}.weight"]) for name in layers)
    )
