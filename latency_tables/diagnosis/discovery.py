"""Lists devices for measurements (this machine, phones by adb, machines by ssh) and what they lack."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import Record
from latency_tables.devices import agent
from latency_tables.devices.adb import AdbDevice
from latency_tables.devices.adb_client import Phone, attached_phones, distinct_phones, trouble_of
from latency_tables.devices.device import MeasuringError
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.phone_state import BusyError
from latency_tables.devices.runners import RUNNERS
from latency_tables.devices.ssh import SshDevice
from latency_tables.runtimes.installation import install_command, missing_converters
from latency_tables.runtimes.registry import RUNTIMES
from latency_tables.runtimes.runtime import Runtime

PATIENCE_SECONDS = 30.0  # for a machine that accepts the connection but does not answer


class Need(Record):
    """Something that is missing, and how to get it."""

    what: str
    fix: str


class RuntimeState(Record):
    """A runtime on a device.

    ``version``: the version of its Python package there, empty if there is none. ``needs``: what is missing for
    measurements there, on the device or on this machine.
    """

    name: str
    version: str = ""
    needs: tuple[Need, ...] = ()


class AttachedDevice(Record):
    """A device, ready or not.

    ``at``: the value for ``--device``. ``problem`` and ``fix``: why nothing can be measured on it, and what to do.
    ``busy``: whether the problem is that another command uses it. ``python``: the version of its Python, empty if there
    is none. ``thermal_unknown``: why a phone does not report whether it is hot. The other fields are as in
    `DeviceInfo`.
    """

    at: str
    problem: str = ""
    fix: str = ""
    busy: bool = False
    device: str = ""
    system: str = ""
    soc: str = ""
    cores: int = 0
    clocks_mhz: tuple[int, ...] = ()
    emulated: bool = False
    cpu: str = ""
    governor: str = ""
    turbo: str = ""
    cpu_limit: float = 0.0
    python: str = ""
    thermal_unknown: str = ""
    runtimes: tuple[RuntimeState, ...] = ()


class Attached(Record):
    """All devices, and why some kinds of devices cannot be listed."""

    devices: tuple[AttachedDevice, ...]
    notes: tuple[str, ...] = ()


def attached(hosts: Sequence[SshDevice] = ()) -> Attached:
    """This machine, the phones, and ``hosts``; a device that does not answer is listed with a problem."""
    phones: tuple[Phone, ...] = ()
    notes: tuple[str, ...] = ()
    try:
        phones = seen_phones()
    except DmaskError as error:
        notes = (f"no phone can be seen: {error}",)
    looks: list[Callable[[], AttachedDevice]] = [
        this_machine,
        *(functools.partial(seen_phone, phone) for phone in phones),
        *(functools.partial(seen_host, host) for host in hosts),
    ]
    with ThreadPoolExecutor(len(looks)) as pool:  # each device has its own time limits
        tasks = [pool.submit(look) for look in looks]
        return Attached(devices=tuple(task.result() for task in tasks), notes=notes)


def named_hosts(names: Sequence[str], python: str = "") -> tuple[SshDevice, ...]:
    """The machines in ``ssh:HOST`` arguments; none is contacted. ``python``: the command that starts a Python there.

    Raises:
        DmaskError: for any other argument, or for ``python`` without a host.
    """
    strange = [name for name in names if not name.startswith("ssh:")]
    if strange:
        raise DmaskError(f"no host '{strange[0]}'", "give ssh:HOST; this machine and phones are examined anyway")
    if python and not names:
        raise DmaskError(f"--python '{python}' is for machines reached by ssh", "name one: ssh:HOST")
    return tuple(SshDevice(DeviceOptions(at=name, python=python), pauses=()) for name in names)


def this_machine() -> AttachedDevice:
    """The machine that runs this process."""
    return _computer("local", agent.survey())


def seen_phones() -> tuple[Phone, ...]:
    """The phones that adb lists.

    Raises:
        DmaskError: if adb is not installed or does not work.
    """
    try:
        return distinct_phones(attached_phones())
    except OSError as error:  # a program for another kind of machine
        raise DmaskError(
            f"'adb' does not start: {error.strerror}", "Debian has one for each: apt install adb"
        ) from error


def seen_host(host: SshDevice, patience: float = PATIENCE_SECONDS) -> AttachedDevice:
    """A machine reached by ssh."""
    at = host.options.at
    try:
        return _computer(at, host.survey(patience))
    except MeasuringError as error:
        python = host.options.python or "python3"
        problem = f"'{python}' on {host.host} is not a working Python: {error.problem}"
        return AttachedDevice(at=at, problem=problem, fix="give another one: --python venv/bin/python")
    except DmaskError as error:
        return AttachedDevice(at=at, problem=error.problem, fix=error.fix)


def seen_phone(phone: Phone, patience: float = PATIENCE_SECONDS) -> AttachedDevice:
    """A phone in any state."""
    at = f"adb:{phone.serial}"
    try:
        if trouble := trouble_of(phone):
            raise trouble
        info, unknown, survey = AdbDevice(DeviceOptions(at=at), pauses=()).survey(patience)
    except DmaskError as error:
        return AttachedDevice(at=at, problem=error.problem, fix=error.fix, busy=isinstance(error, BusyError))

    def missing(runtime: Runtime) -> Iterator[Need]:
        programs = [name for name, runner in RUNNERS.items() if runner.runtime == runtime.name]
        for name in programs:
            yield Need(what=f"--runner {name}", fix=RUNNERS[name].where)
        if programs:
            yield from here_needed(runtime)
        else:
            yield Need(what=f"{runtime.name} does not run on Android", fix="choose another runtime")

    identity = {key: value for key, value in info._asdict().items() if key != "runtime_version"}
    python, versions = (survey["python"], survey["versions"]) if survey else ("", {})
    return AttachedDevice(
        at=at, **identity, python=python, thermal_unknown=unknown, runtimes=_states(versions, missing)
    )


def here_needed(runtime: Runtime) -> tuple[Need, ...]:
    """What is missing here for converting models; empty if everything is installed."""
    missing = " and ".join(missing_converters(runtime))
    return (Need(what=f"no {missing} to convert models here", fix=install_command(runtime)),) if missing else ()


def _computer(at: str, survey: Mapping[str, Any]) -> AttachedDevice:
    """The record of an agent's answer to ``survey``."""

    def missing(runtime: Runtime) -> Iterator[Need]:
        lack, cause = (survey["lacks"][runtime.name][key] for key in ("error", "cause"))
        if cause == "macos":
            yield Need(what=lack, fix="profile on a Mac: --device ssh:MAC")
        elif at == "local":
            yield Need(what=lack, fix=install_command(runtime))
        else:
            yield Need(
                what=f"{lack} there", fix=f"there: pip install {agent.DISTRIBUTIONS[runtime.name][0]}; or --python"
            )
            yield from here_needed(runtime)

    identity = {key: value for key, value in survey.items() if key not in ("versions", "lacks")}
    return AttachedDevice(at=at, **identity, runtimes=_states(survey["versions"], missing))


def _states(versions: Mapping[str, str], missing: Callable[[Runtime], Iterable[Need]]) -> tuple[RuntimeState, ...]:
    """Every runtime with its version or what is missing, and what is needed to convert models for it."""
    states = []
    for runtime in (make() for make in RUNTIMES.values()):
        version = versions.get(runtime.name, "")
        needs = here_needed(runtime) if version else missing(runtime)
        states.append(RuntimeState(name=runtime.name, version=version, needs=tuple(needs)))
    return tuple(states)
