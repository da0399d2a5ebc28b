"""The doctor, for real: what works here is ok, and what was broken for it is found, with what to do.

All runtimes at once are in the test of the command; here it looks at one, or at none.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from latency_tables.conversion.converter import CACHE_BYTES
from latency_tables.devices import agent
from latency_tables.diagnosis import doctor
from latency_tables.diagnosis.discovery import AttachedDevice, named_hosts, this_machine
from latency_tables.diagnosis.doctor import Finding, examine
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from tests.fake_phone import FakePhone, adb_server
from tests.latency_tables.diagnosis.test_runtime_check import shadow
from tests.sshd import Sshd

pytestmark = pytest.mark.slow  # processes that import each runtime

PYTHON = shlex.quote(sys.executable)
VERSION = metadata.version("onnxruntime")


@pytest.fixture(autouse=True)
def _without_adb_and_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: AttachedDevice(at="local"))


@pytest.fixture
def one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    states = this_machine().runtimes[:1]
    monkeypatch.setattr(doctor, "this_machine", lambda: AttachedDevice(at="local", runtimes=states))


def finding(check: str, findings: tuple[Finding, ...]) -> Finding:
    (found,) = (each for each in findings if each.check == check)
    return found


@pytest.mark.usefixtures("one_runtime")
def test_what_works_is_ok() -> None:
    told: list[tuple[str, int, int, str]] = []
    findings = examine(progress=lambda stage, done, total, note="": told.append((stage, done, total, note)))
    for check in ("Python", "packages", "onnxruntime", "cache"):
        assert finding(check, findings).verdict == "ok", finding(check, findings)
    assert finding("onnxruntime", findings).found.startswith(f"{VERSION} runs a block in ")
    assert f"torch {metadata.version('torch')}" in finding("packages", findings).found
    assert re.match(r"7 rounds of one block: \d+\.\d{3} ms ± \d", finding("steadiness", findings).found)
    assert [entry[3] for entry in told] == ["packages", "onnxruntime", "cores", "steadiness", "cache", "adb", "ssh", ""]
    assert [entry[1:3] for entry in told] == [(done, 7) for done in range(8)]


@pytest.mark.usefixtures("one_runtime")
@pytest.mark.parametrize(
    ("module", "text", "found", "fix"),
    [
        (
            "onnxruntime",
            "raise ImportError('libbroken.so is missing')",
            f"{VERSION} does not run a block: ImportError: libbroken.so is missing",
            f"pip install --force-reinstall --no-deps onnxruntime=={VERSION}",
        ),
        (
            "onnx",
            "raise ImportError('no protobuf')",
            "onnxruntime's converter ended with status 1: ImportError: no protobuf",
            f"pip install --force-reinstall --no-deps onnx=={metadata.version('onnx')} onnxruntime=={VERSION}",
        ),
    ],
)
def test_a_runtime_or_converter_that_is_broken(
    module: str, text: str, found: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow(tmp_path, module, text, monkeypatch)
    findings = examine()
    broken = finding("onnxruntime", findings)
    assert (broken.verdict, broken.fix) == ("problem", fix)
    assert broken.found.startswith(found)
    unmeasured = Finding("steadiness", "note", "not measured", "make onnxruntime work first")
    assert finding("steadiness", findings) == unmeasured


def test_what_is_not_installed_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(agent.DISTRIBUTIONS, "onnxruntime", ("no-such-runtime",))
    states = this_machine().runtimes[:1]
    monkeypatch.setattr(doctor, "this_machine", lambda: AttachedDevice(at="local", runtimes=states))
    without_runtime = finding("onnxruntime", examine())
    assert without_runtime == Finding(
        "onnxruntime",
        "note",
        "models can be converted for it here, but no-such-runtime is not installed",
        "pip install onnx onnxruntime",
    )
    monkeypatch.setattr(OnnxRuntime, "converters", ("onnx", "no-such-converter"))
    without_both = finding("onnxruntime", examine())
    assert (without_both.verdict, without_both.found) == ("note", "no-such-runtime is not installed")


def test_packages() -> None:
    torch, rich = metadata.version("torch"), metadata.version("rich")
    right = doctor.judge_packages(["torch>=2", "rich", "nothing==1; extra == 'x'", "nothing; python_version < '3'"])
    assert right == Finding("packages", "ok", f"torch {torch}, rich {rich}")
    wrong = doctor.judge_packages(["torch<2", "rich", "no-such-package>=1.5"])
    assert wrong == Finding(
        "packages",
        "problem",
        f"torch {torch}, no-such-package is missing",
        "pip install 'torch<2' 'no-such-package>=1.5'",
    )


def test_cores() -> None:
    before = os.sched_getaffinity(0)
    (found,) = doctor.examine_cores()
    assert os.sched_getaffinity(0) == before
    assert found.found == f"models run on core {max(before)} of {', '.join(map(str, sorted(before)))}"
    os.sched_setaffinity(0, {min(before)})
    try:
        (found,) = doctor.examine_cores()
    finally:
        os.sched_setaffinity(0, before)
    assert (found.verdict, found.found) == ("note", f"models run on core {min(before)} of {min(before)}")
    assert "more cores" in found.fix


@pytest.mark.parametrize(("last", "verdict"), [(1.2, "ok"), (1.3, "note")])
def test_steadiness_is_that_of_tables(last: float, verdict: str) -> None:
    """Half the range of the rounds' medians, as a share of their median: 10% at most."""
    found = doctor.judge_steadiness([[1.0, 1.0, 9.0], [1.0], [1.0], [last]])
    assert (found.verdict, found.found) == (verdict, f"4 rounds of one block: 1.000 ms ± {(last - 1) / 2:.1%}")
    assert bool(found.fix) == (verdict == "note")


def test_space_for_the_cache(tmp_path: Path) -> None:
    assert doctor.judge_space(tmp_path, CACHE_BYTES // 2, CACHE_BYTES // 2).verdict == "ok"
    short = doctor.judge_space(tmp_path, CACHE_BYTES // 2, CACHE_BYTES // 2 - 1)
    assert (short.verdict, short.found) == ("note", f"1,024 MiB in '{tmp_path}', 1.0 GiB free")
    assert short.fix == "it grows to 2 GiB: make room, or set XDG_CACHE_HOME"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (found,) = doctor.examine_cache()
    assert (found.verdict, found.check) == ("problem", "cache")
    assert found.found.endswith("cannot be written to: Not a directory")
    assert "XDG_CACHE_HOME" in found.fix


def test_without_adb_and_ssh() -> None:
    (adb,), (ssh,) = doctor.examine_adb(), doctor.examine_ssh()
    assert adb == Finding(
        "adb",
        "note",
        "the program 'adb' is not installed",
        "Debian: apt install adb; macOS: brew install android-platform-tools",
    )
    assert ssh == Finding("ssh", "note", "no ssh client on this machine", "apt install openssh-client")


class TestPhones:
    @pytest.fixture(autouse=True)
    def _with_adb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", os.defpath)

    def test_phones_and_their_states(self, tmp_path: Path) -> None:
        with adb_server(tmp_path):
            (nothing,) = doctor.examine_adb()
            with FakePhone(tmp_path / "a") as phone, FakePhone(tmp_path / "b", "unauthorized") as stranger:
                phone.write("props/ro.kernel.qemu", "1\n")
                findings = tuple(doctor.examine_adb())
        assert nothing.verdict == "ok"
        assert nothing.found.endswith(", its server answers, phones: none")
        assert finding("adb", findings).found.endswith("phones: 2")
        emulator = finding(f"adb:{phone.serial}", findings)
        assert (emulator.verdict, emulator.fix) == ("note", "its times are meaningless")
        assert emulator.found.startswith("Google Pixel 8 (arm64-v8a), Android 14, Tensor G3, ")
        refused = finding(f"adb:{stranger.serial}", findings)
        assert (refused.verdict, refused.fix) == ("problem", "unlock it and accept 'Allow USB debugging?'")

    def test_a_cache_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It holds the lock of a phone."""
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
        with adb_server(tmp_path), FakePhone(tmp_path / "a") as phone:
            seen = finding(f"adb:{phone.serial}", tuple(doctor.examine_adb()))
        assert (seen.verdict, seen.found) == (
            "problem",
            "'/dev/null/x/dmask-mobile' cannot be written to: Not a directory",
        )

    def test_adb_that_does_not_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where its server should be, there is something else."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            monkeypatch.setenv("HOME", str(tmp_path))
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(other.getsockname()[1]))
            threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
            (found,) = doctor.examine_adb()
        assert (found.verdict, found.fix) == ("problem", "adb kill-server, then try again")


class TestMachines:
    @pytest.fixture(autouse=True)
    def board(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
        monkeypatch.setenv("PATH", os.defpath)
        with Sshd(tmp_path) as board, adb_server(tmp_path):
            monkeypatch.setenv("PATH", board.path)
            yield board

    @pytest.mark.usefixtures("one_runtime")
    def test_machines_run_what_was_converted_here(self, tmp_path: Path) -> None:
        (tmp_path / "onnxruntime.py").write_text("raise ImportError('libbroken.so is missing')")
        pythons = (PYTHON, f"env PYTHONPATH={tmp_path} {PYTHON}")
        hosts = [host for python in pythons for host in named_hosts(["ssh:board"], python)]
        *_, reached, good, reached_again, broken = examine(hosts)
        assert (reached.check, reached.verdict) == ("ssh:board", "ok")
        assert f"Python {sys.version.split()[0]}" in reached.found
        assert (good.check, good.verdict) == ("ssh:board onnxruntime", "ok")
        assert good.found.startswith(f"{VERSION} runs a block in ")
        assert reached_again == reached
        assert broken == Finding(
            "ssh:board onnxruntime",
            "problem",
            f"{VERSION} does not run a block: ImportError: libbroken.so is missing",
            "there: pip install --force-reinstall --no-deps onnxruntime",
        )

    @pytest.mark.usefixtures("no_runtime")
    def test_machines_that_run_nothing(self) -> None:
        findings = examine(named_hosts(["ssh:board", "ssh:refused"], f"{PYTHON} -S"))
        bare, refused = finding("ssh:board", findings), finding("ssh:refused", findings)
        assert (bare.verdict, refused.verdict) == ("problem", "problem")
        assert bare.found.endswith("which has no runtime")
        assert bare.fix == "there: pip install onnxruntime, or give --python another Python there"
        assert refused.fix == "start sshd there, or set its port in ~/.ssh/config"
