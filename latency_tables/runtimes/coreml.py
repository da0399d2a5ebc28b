"""Core ML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision
from dmask_mobile.temporary import temporary_folder
from export.formats.coreml.writer import to_coreml
from latency_tables.runtimes.zipped import zipped_folder


class CoreMLRuntime:
    """`Runtime` for Core ML, on a Mac; delegates are its compute units. A model is a zip of its package."""

    name = "coreml"
    model_format: ModelFormat = "coreml"
    delegates: tuple[str, ...] = ("cpu", "gpu", "npu", "all")
    converters: tuple[str, ...] = ("coremltools",)
    nhwc_inside = False

    def converts_slowly(self, precision: Precision) -> bool:
        """See `Runtime`."""
        return False

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The package of ``module``; see `Runtime`."""
        with temporary_folder() as folder:
            package = folder / "model.mlpackage"
            to_coreml(module, input_shape, precision).save(str(package))
            return zipped_folder(package)

    def read(self, path: Path) -> bytes:
        """The package; see `Runtime`."""
        return zipped_folder(path)
