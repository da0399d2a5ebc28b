"""This machine: models run in a child process, so that a runtime's crash or hang affects only one measurement."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.temporary import temporary_folder
from latency_tables.devices import agent
from latency_tables.devices.agent_session import AgentSession, agent_command
from latency_tables.devices.device import DeviceInfo, MeasuringError
from latency_tables.devices.options import DeviceOptions
from latency_tables.runtimes.runtime import Runtime


class LocalDevice:
    """`Device` for the machine that runs this process.

    Args:
        options: ``python`` may be another Python, for example in an emulator.
    """

    def __init__(self, options: DeviceOptions | None = None) -> None:
        self.options = options or DeviceOptions()

    def describe(self, runtime: Runtime) -> DeviceInfo:
        """Processor, operating system, number of cores; see `Device`."""
        if self.options.python:
            with self.open(runtime, 1, runtime.delegates[0]) as session:
                return info_of(session, runtime)
        try:
            return described(agent.describe(runtime.name))
        except agent.CannotRunError as error:
            raise lacks_runtime(runtime, str(error), error.cause) from error

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[AgentSession]:
        """A child process of this one.

        Raises:
            DmaskError: if it cannot run with these settings.
        """
        python = shlex.split(self.options.python) or [sys.executable]
        command = agent_command(python, runtime, threads, delegate, self.options.cores)
        with (
            temporary_folder() as folder,
            closing(AgentSession(command, folder=str(folder))) as session,
        ):
            info_of(session, runtime)  # before measuring: problems of the machine are not failures of models
            yield session


def info_of(session: AgentSession, runtime: Runtime, where: str = "") -> DeviceInfo:
    """The device as described by its agent.

    Raises:
        DmaskError: if Python or the runtime is missing there.
        DeviceLostError: if there is no connection.
    """
    try:
        return described(session.describe())
    except MeasuringError as error:
        raise lacks_runtime(runtime, error.problem, error.cause, where) from error


def described(answer: dict[str, Any]) -> DeviceInfo:
    """The record of an agent's answer to ``describe``."""
    words = {key: shown(answer[key]) for key in ("device", "system", "runtime_version", "cpu", "governor", "turbo")}
    return DeviceInfo(**{**answer, **words, "clocks_mhz": tuple(answer["clocks_mhz"])})


def lacks_runtime(runtime: Runtime, reason: str, cause: str, where: str = "") -> DmaskError:
    """The error for a machine on which the agent does not run; ``cause``: the cause in the agent's answer."""
    place = f" on {where}" if where else ""
    todo = {
        "cores": "choose others with --cores, or fewer --threads",
        "macos": "profile on a Mac: --device ssh:MAC",
    }.get(
        cause,
        f"install it{place or ' here'}: pip install {agent.DISTRIBUTIONS[runtime.name][0]}"
        ", or give --python a Python that has it",
    )
    return DmaskError(f"{runtime.name} does not run{place}: {reason}", todo)
