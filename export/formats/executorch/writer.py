"""Writes ExecuTorch (.pte) for its XNNPACK delegate; int8 by torchao's quantizer for exported programs (PT2E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.nets.blocks import SqueezeExcite
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import temporary_beside
from dmask_mobile.records.child import ChildSpec
from export.deployable import InHalf, fold_norms
from export.formats.executorch.reader import ExecuTorchModel, quiet_executorch
from export.formats.protocols import ExportedModel, ExportRequest


class ExecuTorch:
    """`Format` for ExecuTorch: the whole graph in one XNNPACK delegate, with float32 input and output.

    The description's strings are constant methods: ``program.load_method("dmask.class_names").execute([])``.

    fp16: computation is in float16 between two casts. XNNPACK's serializer keeps the weights of convolutions in float32
    (``force_fp32`` in its op_conv2d.py, executorch 1.5.1), so the file does not become smaller. int8 is static: weights
    with one scale for each output channel, activations by histograms over the calibration images. XNNPACK has no int8
    hswish and sigmoid, so these stay in float32.

    Only NCHW is supported: XNNPACK computes in NHWC, but for an NHWC input ExecuTorch adds two transposes. An open
    batch is not supported: a program needs an upper bound for it, and the reshape to (N, C) runs outside the delegate.
    """

    suffix = ".pte"
    package = "executorch"
    extra = "executorch"
    refused: ClassVar[Mapping[Precision, str]] = {}
    int8_activations = True
    layouts = ("NCHW",)
    dynamic_batch = False
    crashes_on_damage = True

    def weight_bytes(self, child: ChildSpec, precision: Precision) -> float:
        """Bytes of the child's weights; in fp16 only the linear layer is stored in float16. See `Format`."""
        if precision != "fp16":
            return WeightBytes(precision).estimate(child).value
        single, half, head = WeightBytes("fp32"), WeightBytes("fp16"), child.located_blocks()[-1]
        return single.estimate(child).value - single.block_cost(*head) + half.block_cost(*head)

    def write(self, request: ExportRequest, path: Path) -> None:
        """Converts the model and writes it in one step; see `Format`."""
        description = request.description
        content = to_executorch(
            request.model,
            description.input_shape,
            description.precision,
            request.calibration,
            description.to_metadata(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            temporary.write_bytes(content)

    def open(self, path: Path) -> ExportedModel:
        """The file, ready to run in ExecuTorch's runtime; see `Format`."""
        return ExecuTorchModel(path)


def to_executorch(
    module: nn.Module,
    input_shape: Sequence[int],
    precision: Precision = "fp32",
    calibration: Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The ExecuTorch program of ``module`` in evaluation mode, with float32 input and output.

    ``calibration``: inputs (M, C, H, W) for int8; ``metadata``: strings that become constant methods.
    """
    module, example = folded(module), torch.zeros(*input_shape)
    with quiet_executorch():
        if precision == "fp16":
            module = InHalf(module)
        elif precision == "int8":
            assert calibration is not None
            module = _to_int8(module, example, calibration)
        return _lowered(module, example, metadata or {})


def folded(model: nn.Module) -> nn.Module:
    """A copy of the model without batch norms and hard sigmoids.

    Batch norms are folded into the convolutions before them, and also hard sigmoids, except for their clamp:
    ``hsigmoid(W x + b) = clamp(W/6 x + b/6 + 1/2, 0, 1)``. XNNPACK would fold batch norms itself, but lowering takes
    half the time with half the nodes (20.6 s -> 9.9 s for fbnetv2_f1). A hard sigmoid would become three operations
    with two transposes around them, but a clamp is part of XNNPACK's convolution.
    """
    model = fold_norms(model)
    for part in list(model.modules()):
        if isinstance(part, SqueezeExcite) and isinstance(part.gate, nn.Hardsigmoid):
            assert part.excite.bias is not None
            part.excite.weight.div_(6)
            part.excite.bias.div_(6).add_(0.5)
            part.gate = nn.Hardtanh(0.0, 1.0)
    return model.requires_grad_(False)


def _to_int8(module: nn.Module, example: Tensor, images: Tensor) -> nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    # Batch norms are already folded; searching for them takes 2.2 s even for a small network.
    quantizer.SUPPORTED_PATTERNS = [pattern for pattern in quantizer.SUPPORTED_PATTERNS if "bn" not in pattern.name]
    prepared = prepare_pt2e(torch.export.export(module, (example,)).module(), quantizer)
    with torch.no_grad():
        for image in images:
            prepared(image[None])
    quantized: nn.Module = convert_pt2e(prepared)
    return quantized


def _lowered(module: nn.Module, example: Tensor, metadata: Mapping[str, str]) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        torch.export.export(module, (example,)),
        partitioner=[XnnpackPartitioner()],
        constant_methods=dict(metadata),
    )
    content: bytes = edge.to_executorch().buffer
    return content
