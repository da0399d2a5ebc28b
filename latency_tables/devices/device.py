"""The Protocol of a device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from dmask_mobile.errors import DmaskError
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


class MeasuringError(DmaskError):
    """A model that could not be loaded or run; the session goes on with the next one."""


class Session(Protocol):
    """A device with a runtime ready on it, which holds models by keys."""

    def load(self, key: str, model: bytes) -> None:
        """Makes a model ready.

        Raises:
            MeasuringError: when the runtime refuses it, crashes or hangs.
        """
        ...

    def sample(self, key: str, seconds: float) -> Samples:
        """Warms up until steady, then runs the model for about ``seconds``, longer where it is unsteady.

        Raises:
            MeasuringError: when the runtime fails, crashes or hangs.
        """
        ...

    def unload(self, key: str) -> None:
        """Forgets a model; one that is not there is no error."""
        ...


class Device(Protocol):
    """Something that can run a runtime's models."""

    def describe(self) -> DeviceInfo:
        """Its identity."""
        ...

    def open(self, runtime: Runtime, threads: int) -> AbstractContextManager[Session]:
        """A session on the device, until the block ends."""
        ...
