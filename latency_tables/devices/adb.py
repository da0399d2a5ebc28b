"""A phone that is reached by adb."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NamedTuple

from torch import nn

from dmask_mobile.errors import DmaskError, shown
from latency_tables.devices.adb_client import Adb, chosen_phone
from latency_tables.devices.agent_session import PAUSES_SECONDS, AgentSession, agent_command
from latency_tables.devices.device import DeviceInfo, MeasuringError, Session
from latency_tables.devices.emulators import is_emulated
from latency_tables.devices.local import info_of
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.phone_state import (
    COOLING_SECONDS,
    TEMPORARY,
    Thermometer,
    WatchedSession,
    alone,
    prepared,
)
from latency_tables.devices.runner_session import RunnerSession
from latency_tables.devices.runners import NativeRunner, native_runner
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime

PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.product.cpu.abi",
    "ro.soc.model",
    "ro.build.version.release",
)
CLOCKS = """for core in /sys/devices/system/cpu/cpu[0-9]*; do
echo "$core online=$(cat $core/online 2>/dev/null) $(cat $core/cpufreq/cpuinfo_max_freq 2>/dev/null)"; done"""
SMALL = (1, 3, 32, 32)  # the input shape of the model that a program runs first, to check whether it can measure


class Core(NamedTuple):
    """A core of a phone: its highest clock (0 if unknown), and whether it is switched off."""

    clock_khz: int
    offline: bool = False


class AdbDevice:
    """`Device` for an Android phone: a native program runs the models, or the agent if the phone has a Python.

    Args:
        options: how the phone is reached.
        patience: the longest time in seconds to wait until a hot phone is cool.
        sleep: a function that waits for some seconds.
        pauses: the seconds to wait before each new attempt after a lost connection.
    """

    def __init__(
        self,
        options: DeviceOptions,
        patience: float = COOLING_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self.options = options
        self.patience = patience
        self.sleep = sleep
        self.pauses = pauses

    def describe(self, runtime: Runtime) -> DeviceInfo:
        """Maker, model, chip, cores, Android version; see `Device`."""
        adb = self._adb()
        info = _info(adb)
        native = self._native(runtime)
        if native is not None:
            return info._replace(runtime_version=native.version())
        with self._agent(adb, runtime, 1, runtime.delegates[0], TEMPORARY) as session:
            return info._replace(runtime_version=info_of(session, runtime, info.device).runtime_version)

    def survey(self, patience: float) -> tuple[DeviceInfo, str, dict[str, Any] | None]:
        """The description of the phone, the reason why its thermal status is unknown (empty if it is known), and the
        agent's answer about runtimes; None if there is no Python.

        Raises:
            DmaskError: if the phone cannot be used, or is in use by another measurement.
        """
        adb = self._adb()
        with alone(adb.serial):
            info, unknown = _info(adb), Thermometer(adb).unknown()
            with self._agent(adb, OnnxRuntime(), 1, "cpu", TEMPORARY) as session:
                session.patience = patience
                try:
                    return info, unknown, session.survey()
                except MeasuringError:
                    return info, unknown, None

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
        """A session on the phone, which is kept awake and at a fixed speed during the session; see `Device`."""
        native = self._native(runtime)
        adb = self._adb()
        with prepared(adb) as folder:
            thermometer = Thermometer(adb, self.patience, self.sleep)
            if native is not None:
                prefix = on_cores(self._cores(adb, threads))
                session = RunnerSession(adb, native, folder, prefix, threads, delegate)
                session.try_out(runtime.convert(nn.Conv2d(SMALL[1], 8, 3).eval(), SMALL, "fp32"))
                yield WatchedSession(session, thermometer)
                return
            with self._agent(adb, runtime, threads, delegate, folder) as agent:
                info_of(
                    agent, runtime, adb.serial
                )  # checked first, so that problems of the phone are not recorded as failures of models
                yield WatchedSession(agent, thermometer)

    def _adb(self) -> Adb:
        return Adb(chosen_phone(self.options.at.partition(":")[2]).serial, self.pauses)

    def _native(self, runtime: Runtime) -> NativeRunner | None:
        if not self.options.runner:
            return None
        native = native_runner(self.options.runner, self.options.runner_flags, runtime)
        if self.options.cores and native.runner.pins_itself:
            raise DmaskError(f"{native.name} chooses its cores itself", "leave out --cores")
        return native

    def _agent(
        self, adb: Adb, runtime: Runtime, threads: int, delegate: str, folder: str
    ) -> AbstractContextManager[AgentSession]:
        python = shlex.split(self.options.python) or ["python3"]
        # Android has no /tmp. `taskset` pins the agent to its cores, as for native programs.
        words = ["env", f"TMPDIR={folder}", *on_cores(self._cores(adb, threads))]
        words += agent_command(python, runtime, threads, delegate, cores=None)

        def link(status: int, stderr: str) -> str | None:
            trouble = adb.trouble()
            if trouble is not None:
                return trouble.problem
            if (
                status == -signal.SIGKILL
            ):  # adb still lists a phone long after it has left a Wi-Fi; only an answer shows that it is there
                adb.shell("true")
            # An agent ends with 0 when its stdin ends; adb also ends with 0 if the phone was disconnected.
            broken = status == 0 or any(line.startswith(("error: ", "adb: ")) for line in stderr.splitlines())
            return f"the connection to phone '{adb.serial}' broke" if broken else None

        return closing(AgentSession(adb.shell_command(words), link, pauses=self.pauses, asks_twice=bool(self.pauses)))

    def _cores(self, adb: Adb, threads: int) -> tuple[int, ...]:
        """The requested cores, or the fastest ones."""
        cores = _cores_of(adb)
        strange = [core for core in self.options.cores if core not in cores]
        if strange:
            raise DmaskError(f"the phone has no core {strange[0]}", f"it has {', '.join(map(str, cores))}")
        fastest = sorted(cores, key=lambda core: (cores[core].clock_khz, core))[-threads:]
        chosen = self.options.cores or tuple(sorted(fastest))
        for core in chosen:
            if cores[core].offline:
                raise DmaskError(
                    f"core {core} of phone '{adb.serial}' is switched off (offline)",
                    "switch off its power saving, or choose others with --cores",
                )
        return chosen


def on_cores(cores: Sequence[int]) -> list[str]:
    """The beginning of a command that starts a program on these cores."""
    return ["taskset", f"{sum(1 << core for core in set(cores)):x}"]


def _info(adb: Adb) -> DeviceInfo:
    """The description of the phone, without its runtimes."""
    script = "; ".join(f"getprop {name}" for name in PROPERTIES)
    said = adb.shell("sh", "-c", script)
    if said.status:
        raise DmaskError(f"'{adb.serial}' is not an Android phone: {said.tail()}", "reach other machines by ssh")
    maker, model, abi, soc, release, *_ = (shown(" ".join(line.split())) for line in said.stdout.split("\n"))
    name = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    cores = _cores_of(adb).values()
    return DeviceInfo(
        device=f"{name} ({abi})",
        system=f"Android {release}",
        cores=len(cores),
        runtime_version="",
        soc=soc,
        clocks_mhz=tuple(round(core.clock_khz / 1000) for core in cores if core.clock_khz),
        emulated=is_emulated(adb),
    )


def _cores_of(adb: Adb) -> dict[int, Core]:
    """The cores by number; the clock is 0 for a core that does not report it, for example because it is off."""
    told = adb.shell("sh", "-c", CLOCKS).stdout
    found = re.findall(r"/cpu(\d+) online=(\S*) ?(.*?)\s*$", told, re.M)
    return {
        int(number): Core(int(clock) if clock.isdecimal() else 0, online == "0")
        for number, online, clock in sorted(found, key=lambda row: int(row[0]))
    }
