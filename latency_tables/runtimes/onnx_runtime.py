"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision
from export.formats.onnx.writer import to_onnx
from latency_tables.runtimes.calibration import calibration


class OnnxRuntime:
    """`Runtime` for ONNX Runtime; from Python on its CPU execution provider only."""

    name = "onnxruntime"
    model_format: ModelFormat = "onnx"
    delegates: tuple[str, ...] = ("cpu", "xnnpack", "nnapi")
    converters: tuple[str, ...] = ("onnx", "onnxruntime")
    nhwc_inside = False

    def converts_slowly(self, precision: Precision) -> bool:
        """See `Runtime`."""
        return precision == "int8"  # its quantizer runs the model

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The ONNX model of ``module``; see `Runtime`."""
        return to_onnx(module, input_shape, precision, calibration(input_shape))

    def read(self, path: Path) -> bytes:
        """The file; see `Runtime`."""
        return path.read_bytes()
