"""What is listed: this machine, the phones of the test suite behind the real adb, machines behind the real ssh."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from latency_tables.devices import agent
from latency_tables.devices.adb_client import Phone, chosen_phone
from latency_tables.devices.runners import RUNNERS
from latency_tables.diagnosis.discovery import (
    AttachedDevice,
    Need,
    RuntimeState,
    attached,
    named_hosts,
    seen_host,
    seen_phone,
    this_machine,
)
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.registry import RUNTIMES
from tests.fake_phone import FakePhone, adb_server
from tests.latency_tables.devices.native_programs import script
from tests.sshd import Sshd

PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert", "executorch": "executorch", "ncnn": "ncnn"}
VERSIONS = {name: metadata.version(package) for name, package in PACKAGES.items()}
PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    with Sshd(tmp_path) as server:
        monkeypatch.setenv("PATH", server.path)
        yield server


def give_python(phone: FakePhone, command: str) -> None:
    script(phone.folder / "system/bin", "python3", command)


def states(device: AttachedDevice) -> dict[str, RuntimeState]:
    return {state.name: state for state in device.runtimes}


def test_this_machine() -> None:
    found = this_machine()
    assert (found.at, found.problem, found.system) == ("local", "", "Linux")
    assert (found.cores, found.python) == (os.cpu_count(), sys.version.split()[0])
    assert {name: state.version for name, state in states(found).items()} == VERSIONS | {"coreml": ""}
    (need,) = states(found)["coreml"].needs
    assert need.what == "Core ML runs on macOS only, this is Linux"
    assert need.fix == "profile on a Mac: --device ssh:MAC"
    assert all(states(found)[name].needs == () for name in VERSIONS)


def test_what_is_not_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agent.DISTRIBUTIONS, "ncnn", ("no-such-runtime",))
    monkeypatch.setattr(LiteRTRuntime, "converters", ("no-such-converter", "onnx"))
    found = states(this_machine())
    assert found["ncnn"] == RuntimeState(
        name="ncnn", needs=(Need(what="no-such-runtime is not installed", fix="pip install 'dmask-mobile[ncnn]'"),)
    )
    need = Need(what="no no-such-converter to convert models here", fix="pip install 'dmask-mobile[litert]'")
    assert found["litert"] == RuntimeState(name="litert", version=VERSIONS["litert"], needs=(need,))


def test_a_phone_without_python(phone: FakePhone) -> None:
    give_python(phone, "echo python3: not found >&2; exit 127")
    found = attached()
    assert found.notes == ()
    assert [device.at for device in found.devices] == ["local", f"adb:{phone.serial}"]
    seen = found.devices[1]
    assert (seen.device, seen.system, seen.soc) == ("Google Pixel 8 (arm64-v8a)", "Android 14", "Tensor G3")
    assert seen.clocks_mhz == (1704,) * 4 + (2367,) * 4 + (2914,)
    assert (seen.problem, seen.emulated, seen.python) == ("", False, "")
    for program, runner in RUNNERS.items():
        assert states(seen)[runner.runtime].needs == (Need(what=f"--runner {program}", fix=runner.where),)
    assert states(seen)["coreml"].needs[0].what == "coreml does not run on Android"


def test_a_phone_with_python_and_an_emulator(phone: FakePhone) -> None:
    give_python(phone, f'exec {PYTHON} "$@"')
    phone.write("props/ro.kernel.qemu", "1\n")
    (seen,) = attached().devices[1:]
    assert (seen.emulated, seen.python) == (True, sys.version.split()[0])
    assert {name: state.version for name, state in states(seen).items()} == VERSIONS | {"coreml": ""}
    assert all(states(seen)[name].needs == () for name in VERSIONS)


def test_phones_that_cannot_be_used(server: Path) -> None:
    with (
        FakePhone(server / "a", "unauthorized") as stranger,
        FakePhone(server / "b", "offline") as sleeper,
        FakePhone(server / "c"),
    ):
        found = {device.at: device for device in attached().devices}
    assert len(found) == 4
    first, second = found[f"adb:{stranger.serial}"], found[f"adb:{sleeper.serial}"]
    assert (first.problem, first.fix) == (
        f"phone '{stranger.serial}' does not trust this computer (unauthorized)",
        "unlock it and accept 'Allow USB debugging?'",
    )
    assert second.problem == f"phone '{sleeper.serial}' is offline"
    assert "plug it in again" in second.fix
    assert (first.runtimes, first.device) == ((), "")


@pytest.mark.slow
def test_a_phone_whose_python_hangs(server: Path) -> None:
    """Its native programs can be used all the same."""
    with FakePhone(server / "phone") as phone:
        script(phone.folder / "system/bin", "python3", "exec sleep 600")
        seen = seen_phone(chosen_phone(), patience=1.0)
    assert (seen.problem, seen.python) == ("", "")
    assert seen.device.startswith("Google Pixel 8")
    assert [need.what for state in seen.runtimes if state.name == "litert" for need in state.needs] == [
        "--runner benchmark_model"
    ]


def test_a_phone_that_has_just_left(server: Path) -> None:
    seen = seen_phone(Phone("S", "device"))
    assert (seen.at, seen.problem) == ("adb:S", "no phone is attached")
    assert "'adb devices' must list it" in seen.fix


@pytest.mark.parametrize(
    ("program", "note"),
    [
        (None, "no phone can be seen: the program 'adb' is not installed; Debian: apt install adb"),
        ("\x7fELF", "no phone can be seen: 'adb' does not start: Exec format error; Debian"),
    ],
)
def test_without_adb(program: str | None, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if program:
        (tmp_path / "adb").write_text(program)
        (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = attached()
    assert [device.at for device in found.devices] == ["local"]
    assert len(found.notes) == 1
    assert found.notes[0].startswith(note)


def test_machines_reached_by_ssh(board: Sshd) -> None:
    hosts = named_hosts(["ssh:board", "ssh:refused", "ssh:locked"], PYTHON)
    with adb_server(board.folder):
        _, reached, refused, locked = attached(hosts).devices
    assert reached == this_machine().model_copy(update={"at": "ssh:board"})
    assert "Connection refused" in refused.problem
    assert refused.fix == "start sshd there, or set its port in ~/.ssh/config"
    assert "Permission denied" in locked.problem
    assert locked.runtimes == ()
    assert board.num_connections == 1  # for all runtimes


def test_a_python_without_packages_and_none(board: Sshd) -> None:
    (bare,) = named_hosts(["ssh:board"], f"{PYTHON} -S")
    found = seen_host(bare)
    assert (found.problem, found.cores) == ("", os.cpu_count())
    for name, package in PACKAGES.items():
        need = Need(what=f"{package} is not installed there", fix=f"there: pip install {package}; or --python")
        assert states(found)[name] == RuntimeState(name=name, needs=(need,))
    (absent,) = named_hosts(["ssh:board"], "nope")
    assert seen_host(absent).problem == "no Python 'nope' on board"
    (strange,) = named_hosts(["ssh:board"], "sh -c 'exit 3'")
    found = seen_host(strange)
    assert found.problem.startswith("'sh -c 'exit 3'' on board is not a working Python: ")
    assert found.fix == "give another one: --python venv/bin/python"


def test_a_machine_that_says_nothing(board: Sshd) -> None:
    (host,) = named_hosts(["ssh:board"], f"{PYTHON} -c 'import sys; sys.stdin.read()'")
    assert "no answer for 1 s: it hangs" in seen_host(host, patience=1.0).problem


@pytest.mark.parametrize(
    ("names", "python", "message"),
    [
        (["board"], "", "no host 'board'; give ssh:HOST"),
        (["adb"], "", "no host 'adb'; give ssh:HOST"),
        (["ssh:"], "", "not a host name: ''"),
        (["ssh:-oProxyCommand=x"], "", "not a host name: '-oProxyCommand=x'"),
        ([], "venv/bin/python", "--python 'venv/bin/python' is for machines reached by ssh; name one"),
    ],
)
def test_words_that_are_no_host(names: list[str], python: str, message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        named_hosts(names, python)


def test_every_runtime_has_a_line() -> None:
    assert [state.name for state in this_machine().runtimes] == list(RUNTIMES)
