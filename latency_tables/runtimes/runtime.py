"""The Protocol of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn


class Runtime(Protocol):
    """Converts modules to its format; `latency_tables.agent` runs them.

    ``suffix`` is the ending of its model files.
    """

    name: str
    suffix: str

    def version(self) -> str:
        """The runtime's own version: part of a table's identity."""
        ...

    def convert(self, module: nn.Module, input_shape: Sequence[int]) -> bytes:
        """The model file of ``module``."""
        ...
