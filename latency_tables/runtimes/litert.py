"""LiteRT (TensorFlow Lite)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision
from export.formats.litert.writer import to_litert
from latency_tables.runtimes.calibration import calibration


class LiteRTRuntime:
    """`Runtime` for LiteRT; ``cpu`` is its XNNPACK delegate; other delegates need its native program."""

    name = "litert"
    model_format: ModelFormat = "litert"
    delegates: tuple[str, ...] = ("cpu", "gpu", "nnapi")
    converters: tuple[str, ...] = ("litert-torch", "ai-edge-quantizer")
    nhwc_inside = True

    def converts_slowly(self, precision: Precision) -> bool:
        """See `Runtime`."""
        return True

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The LiteRT model of ``module``; see `Runtime`."""
        return to_litert(module, input_shape, precision, calibration(input_shape))

    def read(self, path: Path) -> bytes:
        """The file; see `Runtime`."""
        return path.read_bytes()
