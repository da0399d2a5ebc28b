"""Checks whether everything that is needed for measurements is installed and works, and what to do otherwise."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from export.verification.latency_verdict import UNSTABLE_NOISE
from latency_tables.conversion.converter import CACHE_BYTES, cache_folder, kept_models
from latency_tables.devices import agent
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.ssh import SshDevice
from latency_tables.diagnosis.discovery import (
    AttachedDevice,
    RuntimeState,
    here_needed,
    seen_host,
    seen_phone,
    seen_phones,
    this_machine,
)
from latency_tables.diagnosis.runtime_check import TrialModel, trial_model, tried
from latency_tables.profiling.profile import remeasure
from latency_tables.profiling.setup import Setup
from latency_tables.runtimes.installation import installed
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.registry import runtime_named
from latency_tables.table.statistics import summarize
from latency_tables.user_cache import unwritable

PACKAGE = "dmask-mobile"
STEADINESS_ROUNDS, STEADINESS_SECONDS = 7, 0.1
VERSION_SECONDS = 10.0


class Finding(NamedTuple):
    """A finding, and what to do about it.

    ``note``: something optional is absent, or there is a circumstance that the user should know. ``problem``: something
    does not work.
    """

    check: str
    verdict: Literal["ok", "note", "problem"]
    found: str
    fix: str = ""


def examine(hosts: Sequence[SshDevice] = (), progress: Progress = silent) -> tuple[Finding, ...]:
    """The findings about this installation, the attached phones, and ``hosts``."""
    return _Examination(hosts).run(progress)


class _Examination:
    """An examination; it keeps the converted models, because machines reached by ssh run the same models."""

    def __init__(self, hosts: Sequence[SshDevice]) -> None:
        self.hosts = hosts
        self.models: dict[str, TrialModel] = {}

    def run(self, progress: Progress) -> tuple[Finding, ...]:
        """All findings."""
        checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
            ("packages", examine_packages),
            *((state.name, functools.partial(self._runtime, state)) for state in this_machine().runtimes),
            ("cores", examine_cores),
            ("steadiness", self._steadiness),
            ("cache", examine_cache),
            ("adb", examine_adb),
            ("ssh", examine_ssh),
            *((host.options.at, functools.partial(self._host, host)) for host in self.hosts),
        ]
        findings: list[Finding] = []
        for done, (name, check) in enumerate(checks):
            progress("examine", done, len(checks), name)
            findings += check()
        progress("examine", len(checks), len(checks))
        return tuple(findings)

    def _runtime(self, state: RuntimeState) -> Iterator[Finding]:
        """Checks a runtime on this machine, from the conversion to the comparison of outputs."""
        runtime = runtime_named(state.name)
        if lacks := here_needed(runtime):
            lack = (*state.needs, *lacks)[0]
            yield Finding(state.name, "note", lack.what, lack.fix)
            return
        try:
            self.models[state.name] = trial_model(runtime)
        except DmaskError as error:
            yield Finding(state.name, "problem", str(error), reinstall(runtime.converters))
            return
        for lack in state.needs:
            yield Finding(state.name, "note", f"models can be converted for it here, but {lack.what}", lack.fix)
        if state.version:
            yield self._tried(state.name, state, LocalDevice(), reinstall(agent.DISTRIBUTIONS[state.name]))

    def _steadiness(self) -> Iterator[Finding]:
        """Measures how much rounds of one block differ now."""
        setup = Setup((LocalDevice(),), OnnxRuntime())
        try:
            models = {"block": self.models["onnxruntime"].content}
            rounds = remeasure(models, setup, STEADINESS_ROUNDS, STEADINESS_SECONDS)["block"]
            yield judge_steadiness([samples.wall_ms for samples in rounds])
        except (KeyError, DmaskError):  # it was not converted or does not run; another finding reports this
            yield Finding("steadiness", "note", "not measured", "make onnxruntime work first")

    def _host(self, host: SshDevice) -> Iterator[Finding]:
        """Checks a machine reached by ssh, and each runtime there for which models can be converted here."""
        seen = seen_host(host)
        yield judge_device(seen)
        for state in seen.runtimes:
            if state.version and state.name in self.models:
                fix = f"there: pip install --force-reinstall --no-deps {agent.DISTRIBUTIONS[state.name][0]}"
                yield self._tried(f"{seen.at} {state.name}", state, host, fix)

    def _tried(self, check: str, state: RuntimeState, device: LocalDevice | SshDevice, fix: str) -> Finding:
        """Whether a runtime runs its model on a device."""
        try:
            trial = tried(device, runtime_named(state.name), self.models[state.name])
        except DmaskError as error:
            return Finding(check, "problem", f"{state.version} does not run a block: {error.problem}", fix)
        found = (
            f"{state.version} runs a block in {trial.ms:.3f} ms, differs from PyTorch by {trial.error:.1g} of the range"
        )
        return Finding(check, "ok", found)


def examine_packages() -> Iterator[Finding]:
    """Checks Python and the required packages."""
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), metadata.metadata(PACKAGE)["Requires-Python"]
    found = f"{version}, {platform.system()} {platform.machine()}"
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Finding("Python", "ok", found)
    else:
        yield Finding("Python", "problem", found, f"make a venv with a Python {wanted}")
    yield judge_packages(metadata.requires(PACKAGE) or [])


def judge_packages(requirements: Iterable[str]) -> Finding:
    """Whether the requirements are installed, without extras; with the versions."""
    from packaging.requirements import Requirement

    right, wrong, todo = [], [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = metadata.version(requirement.name) if installed(requirement.name) else "is missing"
        if installed(requirement.name) and requirement.specifier.contains(version, prereleases=True):
            right.append(f"{requirement.name} {version}")
        else:
            wrong.append(f"{requirement.name} {version}")
            todo.append(f"{requirement.name}{requirement.specifier}")
    if wrong:
        return Finding("packages", "problem", ", ".join(wrong), shlex.join(["pip", "install", *todo]))
    return Finding("packages", "ok", ", ".join(right))


def reinstall(distributions: Iterable[str]) -> str:
    """The command that reinstalls those of the distributions that are installed, in their current versions."""
    there = [f"{name}=={metadata.version(name)}" for name in distributions if installed(name)]
    return shlex.join(["pip", "install", "--force-reinstall", "--no-deps", *there])


def examine_cores() -> Iterator[Finding]:
    """Checks whether measurements can be pinned to a core."""
    if not hasattr(os, "sched_setaffinity"):
        found = f"{platform.system()} cannot pin processes to cores: times vary more"
        yield Finding("cores", "note", found, "close other programs while you profile")
        return
    cores = sorted(os.sched_getaffinity(0))
    try:
        with ThreadPoolExecutor(1) as pool:  # sets the affinity of this thread only
            pool.submit(os.sched_setaffinity, 0, cores[-1:]).result()
    except OSError as error:
        fix = "allow sched_setaffinity, which containers may forbid"
        yield Finding("cores", "problem", f"no process can stay on a core: {error.strerror}", fix)
        return
    found = f"models run on core {cores[-1]} of {', '.join(map(str, cores))}"
    if len(cores) > 1:
        yield Finding("cores", "ok", found)
    else:
        yield Finding("cores", "note", found, "everything else runs there as well: allow this process more cores")


def judge_steadiness(rounds: Sequence[Sequence[float]]) -> Finding:
    """Whether a machine is steady enough for measurements, from the samples of one block in consecutive rounds."""
    summary = summarize([statistics.median(samples) for samples in rounds])
    found = f"{len(rounds)} rounds of one block: {summary.typical_ms:.3f} ms ± {summary.noise:.1%}"
    if summary.noise <= UNSTABLE_NOISE:
        return Finding("steadiness", "ok", found)
    return Finding("steadiness", "note", found, "close other programs before you profile; --rounds 8 helps")


def examine_cache() -> Iterator[Finding]:
    """Checks whether converted models can be stored."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        kept = sum(status.st_size for status, _ in kept_models(folder))
    except OSError as error:
        trouble = unwritable(folder, error)
        yield Finding("cache", "problem", trouble.problem, trouble.fix)
    else:
        yield judge_space(folder, kept, shutil.disk_usage(folder).free)


def judge_space(folder: Path, kept: int, free: int) -> Finding:
    """Whether the cache can grow to its full size; it has ``kept`` bytes, and the disk has ``free`` bytes left."""
    found = f"{kept / 2**20:,.0f} MiB in '{folder}', {free / 2**30:,.1f} GiB free"
    if kept + free >= CACHE_BYTES:
        return Finding("cache", "ok", found)
    fix = f"it grows to {CACHE_BYTES / 2**30:g} GiB: make room, or set XDG_CACHE_HOME"
    return Finding("cache", "note", found, fix)


def examine_adb() -> Iterator[Finding]:
    """Checks adb and the phones that it lists."""
    try:
        phones = seen_phones()
    except DmaskError as error:
        yield Finding("adb", "problem" if shutil.which("adb") else "note", error.problem, error.fix)
        return
    version = re.search(r"^Version (\S+)", said_by("adb", "version"), re.M)
    number = version[1] if version else "version unknown"
    yield Finding("adb", "ok", f"{number}, its server answers, phones: {len(phones) or 'none'}")
    yield from (judge_device(seen_phone(phone)) for phone in phones)


def examine_ssh() -> Iterator[Finding]:
    """Checks the ssh client."""
    if shutil.which("ssh") is None:
        yield Finding("ssh", "note", "no ssh client on this machine", "apt install openssh-client")
    else:
        yield Finding("ssh", "ok", said_by("ssh", "-V"))


def said_by(*command: str) -> str:
    """The version that a program prints, or the reason why it does not."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).strip()


def judge_device(device: AttachedDevice) -> Finding:
    """Whether measurements are possible on a phone or a machine reached by ssh."""
    if device.problem:
        return Finding(device.at, "note" if device.busy else "problem", device.problem, device.fix)
    python = f"Python {device.python}" if device.python else "no Python"
    found = ", ".join(filter(None, (device.device, device.system, device.soc, python)))
    if device.emulated:
        return Finding(device.at, "note", f"{found}: an emulator", "its times are meaningless")
    if device.at.startswith("ssh:") and not any(state.version for state in device.runtimes):
        fix = "there: pip install onnxruntime, or give --python another Python there"
        return Finding(device.at, "problem", f"{found}, which has no runtime", fix)
    if device.thermal_unknown:
        fix = "watch its temperature yourself: measurements of a hot phone cannot be recognized"
        return Finding(device.at, "note", f"{found}; its thermal state is unknown: {device.thermal_unknown}", fix)
    return Finding(device.at, "ok", found)
