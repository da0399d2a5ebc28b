"""``dmask devices`` and ``dmask doctor`` as users meet them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from dmask_mobile import cli
from dmask_mobile.cli.console import console
from dmask_mobile.cli.device_commands import cores_in_words, device_table, findings_table, runtime_in_words
from latency_tables.diagnosis import doctor
from latency_tables.diagnosis.discovery import AttachedDevice, Need, RuntimeState
from latency_tables.diagnosis.doctor import Finding
from tests.fake_phone import FakePhone, adb_server
from tests.json_schemas import described
from tests.processes import DMASK, run_command
from tests.sshd import Sshd


def dmask(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["dmask", *words])
    monkeypatch.setattr(console, "_width", 200)  # else that of whatever test came first
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(str(ended.value))


def shown(table: Table) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.slow
def test_devices_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dmask("devices", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "--device local" in said
    assert "Core ML runs on macOS only, this is Linux (profile on a Mac: --device ssh:MAC)" in said
    assert "no phone can be seen: the program 'adb' is not installed; Debian: apt install adb" in said


@pytest.mark.slow
def test_devices_for_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with adb_server(tmp_path), FakePhone(tmp_path / "phone", "unauthorized") as phone:
        assert dmask("devices", "--json", monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert [device["at"] for device in found["devices"]] == ["local", f"adb:{phone.serial}"]
    runtimes = {state["name"]: state for state in found["devices"][0]["runtimes"]}
    assert runtimes["onnxruntime"] == {"name": "onnxruntime", "version": metadata.version("onnxruntime"), "needs": []}
    assert runtimes["coreml"]["needs"][0]["fix"] == "profile on a Mac: --device ssh:MAC"
    assert "unauthorized" in found["devices"][1]["problem"]
    assert found["notes"] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["devices", "doctor"])
def test_words_that_are_no_host(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dmask(command, "pi@raspberry", monkeypatch=monkeypatch) == 2
    assert "error: no host 'pi@raspberry'; give ssh:HOST" in capsys.readouterr().err


@pytest.mark.slow
def test_exit_status_is_documented(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert dmask("doctor", "--help", monkeypatch=monkeypatch) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 if there is no problem (a missing optional part is only a note), 1 if there is one" in said


@pytest.mark.slow
def test_doctor_on_this_machine(tmp_path: Path) -> None:
    """Every runtime that is installed here works, here and on a machine reached by ssh."""
    command = [DMASK, "doctor", "ssh:board", "--python", shlex.quote(sys.executable), "--json"]
    with Sshd(tmp_path) as board, adb_server(tmp_path):
        variables = os.environ | {"PATH": board.path}
        done = run_command(command, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    report = described("doctor", done.stdout)
    assert report["healthy"] is True
    verdicts = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    for runtime in ("onnxruntime", "litert", "executorch", "ncnn"):
        assert verdicts[runtime] == verdicts[f"ssh:board {runtime}"] == "ok"
    assert verdicts["coreml"] == "note"
    assert {verdicts[check] for check in ("Python", "packages", "cache", "adb", "ssh", "ssh:board")} == {"ok"}
    assert "examine 12/12" in done.stderr


@pytest.mark.slow
def test_doctor_ends_with_1_when_something_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the runtimes, which take long; adb and ssh are absent, which is none."""
    monkeypatch.setattr(doctor, "this_machine", lambda: AttachedDevice(at="local"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert dmask("doctor", monkeypatch=monkeypatch) == 0
    assert "apt install openssh-client" in capsys.readouterr().out
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert dmask("doctor", monkeypatch=monkeypatch) == 1
    assert "XDG_CACHE_HOME" in capsys.readouterr().out


def test_what_devices_say_is_no_markup() -> None:
    need = Need(what="no [bold]x[/] here", fix="pip install 'dmask-mobile[litert]'")
    device = AttachedDevice(
        at="adb:S",
        device="[red]Phone[/]",
        cores=2,
        runtimes=(RuntimeState(name="litert", version="2.3", needs=(need,)), RuntimeState(name="ncnn", version="1")),
    )
    text = shown(device_table(device))
    assert "[red]Phone[/]" in text
    assert "2.3: no [bold]x[/] here (pip install 'dmask-mobile[litert]')" in text
    assert "none: native programs run the models (--runner)" in text
    text = shown(device_table(AttachedDevice(at="adb:S", problem="phone 'S' is offline [1]", fix="plug it in again")))
    assert "phone 'S' is offline [1]; plug it in again" in text
    text = shown(findings_table([Finding("litert", "note", "not here", "pip install 'dmask-mobile[litert]'")]))
    assert "pip install 'dmask-mobile[litert]'" in text


@pytest.mark.parametrize(
    ("cores", "clocks", "words"),
    [
        (4, [], "4"),
        (4, [1800] * 4, "4: 0-3 up to 1800 MHz"),
        (3, [600, 2400, 600], "3: 0 up to 600 MHz, 1 up to 2400 MHz, 2 up to 600 MHz"),
    ],
)
def test_cores_in_words(cores: int, clocks: list[int], words: str) -> None:
    assert cores_in_words(cores, clocks) == words


def test_a_runtime_that_is_ready_is_its_version() -> None:
    assert runtime_in_words(RuntimeState(name="ncnn", version="1.0")) == "1.0"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["benchmark_model (1)", "it's benchmark_model", "./benchmark_model"])
def test_a_runner_is_a_path_and_no_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Browsers call a second download so."""
    monkeypatch.chdir(tmp_path)
    words = ["profile", "demo", "--device", "adb", "--runtime", "litert", "--runner", name, "-o", "t.jsonl"]
    assert dmask(*words, monkeypatch=monkeypatch) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"no runner '{tmp_path / name}'" in said
