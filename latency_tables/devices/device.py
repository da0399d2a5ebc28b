"""The Protocol of a device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from latency_tables.runtimes.runtime import Runtime


class DeviceInfo(NamedTuple):
    """What identifies a device: measurements of different devices never mix."""

    device: str
    system: str
    cores: int


class Samples(NamedTuple):
    """Milliseconds of single inferences: wall time, and CPU time of the calling thread."""

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]


class Loaded(Protocol):
    """A model that stands ready on the device."""

    def sample(self, seconds: float) -> Samples:
        """Warms up, then runs the model for at most about ``seconds``: five times at least, a hundred at most."""
        ...


class Device(Protocol):
    """Something that can run a runtime's models."""

    def describe(self) -> DeviceInfo:
        """Its identity."""
        ...

    def load(self, runtime: Runtime, model: bytes, threads: int) -> AbstractContextManager[Loaded]:
        """The model on the device, until the block ends."""
        ...
