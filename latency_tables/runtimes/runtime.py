"""The Protocol of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn


class Runner(Protocol):
    """A loaded model with its input in place."""

    def run(self) -> None:
        """One inference, in the calling thread when the runtime was opened with one thread."""
        ...


class Runtime(Protocol):
    """Converts modules to its format and runs them."""

    name: str

    def version(self) -> str:
        """The runtime's own version: part of a table's identity."""
        ...

    def convert(self, module: nn.Module, input_shape: Sequence[int]) -> bytes:
        """The model file of ``module``."""
        ...

    def open(self, model: bytes, threads: int) -> AbstractContextManager[Runner]:
        """A runner for a model file, with random input."""
        ...
