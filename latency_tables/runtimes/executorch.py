"""ExecuTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision
from export.formats.executorch.writer import to_executorch
from latency_tables.runtimes.calibration import calibration


class ExecuTorchRuntime:
    """`Runtime` for ExecuTorch; ``cpu`` is its XNNPACK delegate."""

    name = "executorch"
    model_format: ModelFormat = "executorch"
    delegates: tuple[str, ...] = ("cpu",)
    converters: tuple[str, ...] = ("executorch", "torchao")
    nhwc_inside = False

    def converts_slowly(self, precision: Precision) -> bool:
        """See `Runtime`."""
        return True

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The program of ``module``; see `Runtime`."""
        return to_executorch(module, input_shape, precision, calibration(input_shape))

    def read(self, path: Path) -> bytes:
        """The file; see `Runtime`."""
        return path.read_bytes()
