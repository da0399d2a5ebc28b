"""The Protocol of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from dmask_mobile.records.artifact import ModelFormat


class Runtime(Protocol):
    """Converts modules to its format; `latency_tables.agent` runs them.

    ``model_format`` is the export format that it runs, ``suffix`` the ending of its model files.
    """

    name: str
    model_format: ModelFormat
    suffix: str

    def version(self) -> str:
        """The runtime's own version: part of a table's identity."""
        ...

    def convert(self, module: nn.Module, input_shape: Sequence[int]) -> bytes:
        """The model file of ``module``."""
        ...
