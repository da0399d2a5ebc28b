"""ncnn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision
from dmask_mobile.temporary import temporary_folder
from export.formats.ncnn.writer import to_ncnn
from latency_tables.runtimes.zipped import zipped_folder


class NcnnRuntime:
    """`Runtime` for ncnn; ``gpu``, by Vulkan, needs its native program. A model is a zip of its two files."""

    name = "ncnn"
    model_format: ModelFormat = "ncnn"
    delegates: tuple[str, ...] = ("cpu", "gpu")
    converters: tuple[str, ...] = ("ncnn", "pnnx")
    nhwc_inside = False

    def converts_slowly(self, precision: Precision) -> bool:
        """See `Runtime`."""
        return True

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The ncnn model of ``module``; see `Runtime`."""
        with temporary_folder() as folder:
            to_ncnn(module, input_shape, folder, fp16=precision == "fp16")
            return zipped_folder(folder)

    def read(self, path: Path) -> bytes:
        """The folder; see `Runtime`."""
        return zipped_folder(path)
