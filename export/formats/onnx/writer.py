"""Writes ONNX by PyTorch's TorchScript exporter; int8 by onnxruntime's quantizer.

This exporter is used because it takes about 0.03 s for a block. The dynamo exporter takes seconds, and a latency table
needs hundreds of blocks. Blocks for tables and deployed networks are exported in the same way, so that tables measure
what is deployed. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import onnx
import torch
from torch import Tensor, nn

from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.records.artifact import PIXEL_RANGE, ModelDescription, Precision
from dmask_mobile.records.base import temporary_beside
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.temporary import temporary_folder
from export.deployable import InHalf
from export.formats.onnx.borders import with_constant_borders
from export.formats.onnx.reader import OnnxModel
from export.formats.protocols import ExportedModel, ExportRequest

OPSET = 17


class Onnx:
    """`Format` for ONNX.

    int8 is static: QDQ format, symmetric weights per channel, activations calibrated by their extremes.
    """

    suffix = ".onnx"
    package = "onnx"
    extra = ""
    refused: ClassVar[Mapping[Precision, str]] = {}
    int8_activations = True
    layouts = ("NCHW", "NHWC")
    dynamic_batch = True
    crashes_on_damage = False

    def weight_bytes(self, child: ChildSpec, precision: Precision) -> float:
        """Bytes of the child's weights; see `Format`."""
        return WeightBytes(precision).estimate(child).value

    def write(self, request: ExportRequest, path: Path) -> None:
        """Converts and checks the model and writes it in one step; see `Format`."""
        description = request.description
        content = to_onnx(
            request.model,
            description.input_shape,
            description.precision,
            request.calibration,
            description.batch is None,
        )
        model = onnx.load_from_string(content)
        onnx.helper.set_model_props(model, {**description.to_metadata(), **_customary(description)})
        model.producer_name, model.domain = "dmask-mobile", "dmask"
        model.doc_string = f"{description.child.name}, {description.precision}, {description.child.resolution} px"
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            temporary.write_bytes(model.SerializeToString())

    def open(self, path: Path) -> ExportedModel:
        """The file, ready to run in ONNX Runtime; see `Format`."""
        return OnnxModel(path)


def to_onnx(
    module: nn.Module,
    input_shape: Sequence[int],
    precision: Precision = "fp32",
    calibration: Tensor | None = None,
    dynamic_batch: bool = False,
) -> bytes:
    """The serialized ONNX model (opset 17) of ``module`` in evaluation mode: ``input`` -> ``output``, both float32.

    ``calibration``: inputs (M, C, H, W) for int8.
    """
    content = _exported(InHalf(module) if precision == "fp16" else module, input_shape, dynamic_batch)
    if precision != "int8":
        return content
    assert calibration is not None
    return bytes(_to_int8(onnx.load_from_string(content), calibration).SerializeToString())


def _exported(module: nn.Module, input_shape: Sequence[int], dynamic_batch: bool) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # about the exporter itself; see above
        # It leaves the borders of padding SAME to be computed; `with_constant_borders` does that.
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1 can be constant folded")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(*input_shape),),
            buffer,  # type: ignore[arg-type]  # accepted by this exporter, absent from its annotation
            input_names=["input"],
            output_names=["output"],
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}} if dynamic_batch else None,
        )
    return with_constant_borders(buffer.getvalue())


def _customary(description: ModelDescription) -> dict[str, str]:
    """The usual keys for the input of ONNX image models (ONNX metadata properties, Windows ML)."""
    pixels = description.preprocessing.input_range == PIXEL_RANGE
    return {
        "Image.BitmapPixelFormat": "Rgb8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255" if pixels else "Normalized_0_1",
        "model_author": description.author,
        "model_license": description.license,
    }


def _with_used_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without operator sets that no node uses.

    onnxruntime's quantizer adds all operator sets of its version, and older versions then refuse the file.
    """
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


class _Calibration:
    """onnxruntime's `CalibrationDataReader` for images, one at a time because the model has batch 1."""

    def __init__(self, images: Tensor) -> None:
        self.rows: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, object] | None:
        """The next input; None after the last."""
        image = next(self.rows, None)
        return None if image is None else {"input": image[None].numpy()}


def _to_int8(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(_Calibration, CalibrationDataReader):  # type: ignore[misc]  # the base must load with its package
        pass

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantizer writes advice to the root logger
    try:
        with temporary_folder() as folder:
            prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
            quant_pre_process(model, str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(quantized),
                Reader(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return _with_used_domains(onnx.load(quantized))
    finally:
        root.setLevel(level)
