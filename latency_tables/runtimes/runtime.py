"""The Protocol of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from dmask_mobile.records.artifact import ModelFormat, Precision


class Runtime(Protocol):
    """Converts modules to its format; `latency_tables.devices.agent` or a native program on the device runs them.

    ``model_format``: the export format that it runs. ``delegates``: its backends, the default first. ``converters``:
    the distributions, besides torch, whose versions determine the result of `convert`. ``nhwc_inside``: networks
    compute in NHWC, so a model with NHWC input and output is converted without transposes.
    """

    name: str
    model_format: ModelFormat
    delegates: tuple[str, ...]
    converters: tuple[str, ...]
    nhwc_inside: bool

    def converts_slowly(self, precision: Precision) -> bool:
        """Whether converting a block takes so long that several processes and a cache are useful."""
        ...

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        """The model of ``module`` in the form that sessions load, with float32 input and output."""
        ...

    def read(self, path: Path) -> bytes:
        """An exported model in the form that sessions load."""
        ...
