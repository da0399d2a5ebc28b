"""The Protocols of a device and of a session on it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from dmask_mobile.errors import DmaskError
from latency_tables.runtimes.runtime import Runtime


class DeviceInfo(NamedTuple):
    """The identity of a device; measurements of different devices are never mixed.

    ``runtime_version``: of the runtime on the device; ``soc``: a phone's chip; ``clocks_mhz``: the highest clock of
    each core, where the system tells it; ``emulated``: an emulator, whose times are meaningless.
    """

    device: str
    system: str
    cores: int
    runtime_version: str
    soc: str = ""
    clocks_mhz: tuple[int, ...] = ()
    emulated: bool = False
    cpu: str = ""
    governor: str = ""
    turbo: str = ""
    cpu_limit: float = 0.0


class Samples(NamedTuple):
    """The milliseconds of single inferences: wall time, and CPU time of the calling thread if it is known.

    ``hot``: the device said that it is too warm for its full speed; ``loops``: each sample is the mean of so many;
    ``slowed``: something else slowed down the core, such as another virtual machine.
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    hot: bool = False
    loops: int = 1
    slowed: bool = False


class Conditions(NamedTuple):
    """The state of a phone: Android's thermal status (0 to 6), battery level and temperature."""

    thermal_status: int | None
    battery_percent: float | None
    battery_celsius: float | None


class MeasuringError(DmaskError):
    """A model that could not be loaded or run; the session continues with the next one.

    ``cause``: why the agent does not run at all, as a word of `latency_tables.devices.agent`; empty if the model is the
    cause.
    """

    def __init__(self, problem: str, fix: str = "", cause: str = "") -> None:
        super().__init__(problem, fix)
        self.cause = cause


class DeviceLostError(DmaskError):
    """The device was lost: measuring ends, and earlier measurements are kept."""


class DeviceTroubleError(DmaskError):
    """The device cannot run any model now: its disk or memory is full, or its process was killed.

    No model is the cause: measuring ends, earlier measurements are kept, and the same command continues later.
    """


class Session(Protocol):
    """A device with a runtime that is ready; it keeps models by key.

    Every method raises `DeviceLostError` if the device is lost, and `DeviceTroubleError` if it is present but cannot
    run any model.
    """

    def load(self, key: str, model: bytes) -> None:
        """Makes a model ready.

        Raises:
            MeasuringError: if the runtime refuses it, crashes or hangs.
        """
        ...

    def sample(self, key: str, seconds: float) -> Samples:
        """Warms up until times are steady, then runs the model for about ``seconds``, longer if it is unsteady.

        Raises:
            MeasuringError: if the runtime fails, crashes or hangs.
        """
        ...

    def unload(self, key: str) -> None:
        """Removes a model; it is not an error if the model is absent."""
        ...

    def conditions(self) -> Conditions | None:
        """The state of the device now; None if it reports none."""
        ...


@runtime_checkable
class EstimatingSession(Protocol):
    """A session whose runtime may estimate the shares of a model's operations, as Core ML does."""

    def shares(self, key: str) -> dict[str, float]:
        """The share of each kind of operation as estimated by the runtime; empty if it makes no estimate.

        Raises:
            MeasuringError: if the runtime fails, crashes or hangs.
        """
        ...


@runtime_checkable
class MeteringSession(Protocol):
    """A session that may measure other metrics of a model than its latency."""

    def meter(self, metric: str, model: bytes, warm_up: bytes) -> float:
        """The metric of a model, in a new process that first runs the small model ``warm_up``.

        Raises:
            MeasuringError: if the runtime fails, crashes or hangs; with the cause `NO_METER` if the device does not
                report the metric.
        """
        ...


NO_METER = "meter"
"""The cause of a `MeasuringError`: the device does not report the metric."""


def metered(session: Session, metric: str, model: bytes, warm_up: bytes) -> float:
    """The metric of a model; see `MeteringSession`.

    Raises:
        MeasuringError: also for a session that measures nothing but latencies.
    """
    if not isinstance(session, MeteringSession):
        raise MeasuringError("the runtime's native program measures latencies only", cause=NO_METER)
    return session.meter(metric, model, warm_up)


class Device(Protocol):
    """Something that can run a runtime's models. It is not contacted before one of these methods is called."""

    def describe(self, runtime: Runtime) -> DeviceInfo:
        """Its identity.

        Raises:
            DmaskError: if it is absent, or lacks the runtime.
        """
        ...

    def open(self, runtime: Runtime, threads: int, delegate: str) -> AbstractContextManager[Session]:
        """A session on the device until the end of the ``with`` block."""
        ...
