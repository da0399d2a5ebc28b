"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dmask_mobile.records.artifact import ModelFormat
from export.to_onnx import to_onnx


class OnnxRuntime:
    """`Runtime` for ONNX Runtime's CPU execution provider."""

    name = "onnxruntime"
    model_format: ModelFormat = "onnx"
    suffix = ".onnx"

    def version(self) -> str:
        """The version of the installed onnxruntime."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def convert(self, module: nn.Module, input_shape: Sequence[int]) -> bytes:
        """The ONNX model of ``module``."""
        return to_onnx(module, input_shape)
