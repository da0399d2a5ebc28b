"""The Protocol of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision


class Runtime(Protocol):
    """Converts modules to its format; `latency_tables.devices.agent` or a native program on the device runs them.

    ``model_format`` is the export format that it runs; ``delegates``: what it can run on, the usual one first;
    ``converters``: the distributions, beside torch, whose versions decide what `convert` gives; ``nhwc_inside``:
    networks compute in NHWC, and a model that takes and gives NHWC is converted without transposes.
    """

    name: str
    model_format: ModelFormat
    delegates: tuple[str, ...]
    converters: tuple[str, ...]
    nhwc_inside: bool

    def converts_slowly(self, precision: Precision) -> bool:
        """Whether a block takes long enough for several processes and a cache to pay."""
        ...

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The model of ``module``, float32 at its ends, as sessions load it."""
        ...

    def read(self, path: Path) -> bytes:
        """An exported model as sessions load it."""
        ...
