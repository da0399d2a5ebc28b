"""How a command ends: exit status and one message."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from dmask_mobile import __version__
from dmask_mobile.cli import main, outcome
from dmask_mobile.errors import DmaskError
from tests.processes import DMASK, run_command


def ended(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str]:
    """The exit status of a command that raises ``error``, and its standard error."""

    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(outcome, "_run", fail)
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert captured.out == ""
    return end.value.code, captured.err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DmaskError("width is 3", "give 8"), 2, "error: width is 3; give 8"),
        (
            TypeError("got [/x] and \x1b[31m"),
            3,
            f"this is a fault of dmask-mobile {__version__}: TypeError: got [/x] and \\x1b[31m; to report it, run the"
            " command again as 'dmask --debug ...' and send its output, with the output of 'dmask doctor'",
        ),
        (SystemExit(0), 3, f"this is a fault of dmask-mobile {__version__}: SystemExit: 0"),
        (RecursionError("deep"), 3, f"this is a fault of dmask-mobile {__version__}: RecursionError: deep"),
        (MemoryError(), 2, "error: there is not enough memory: MemoryError; use a smaller --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 2, "there is not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/[/x]/a"), 2, "error: 'runs/[/x]/a': No space left"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 2, "free some space, or write to another disk"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "'out': Permission denied; check the permi"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 2, "error: Broken pipe"),
    ],
)
def test_one_message_and_the_exit_status(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, said = ended(error, monkeypatch, capsys)
    assert found == status
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("error", "status"), [(ValueError("bad"), 3), (DmaskError("bad"), 2)])
def test_debug_shows_the_traceback_and_its_cause(
    error: Exception, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error.__cause__ = ZeroDivisionError("in a cost of the user's")
    monkeypatch.setenv("DMASK_DEBUG", "1")
    found, said = ended(error, monkeypatch, capsys)
    assert found == status
    assert "Traceback (most recent call last):" in said
    assert "ZeroDivisionError: in a cost of the user's" in said


@pytest.mark.parametrize(("variable", "kind"), [("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state")])
@pytest.mark.parametrize("below", ["", "dmask-mobile", "dmask-mobile/devices/x.json"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR])
def test_a_folder_of_the_user_is_named_with_its_variable(
    variable: str,
    kind: str,
    below: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / kind))
    path = str(tmp_path / kind / below)
    found, said = ended(OSError(number, os.strerror(number), path), monkeypatch, capsys)
    assert found == 2
    assert f"'{path}': {os.strerror(number)}; set {variable} to a writable folder" in said


@pytest.mark.parametrize("words", [["nope"], ["space", "show"], ["space", "show", "demo", "--x"], ["space"], []])
def test_wrong_use_is_bad_input(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dmask", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "Usage: dmask" in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "shell", "status", "message"),
    [
        ("space show demo", ">/dev/full", 2, "error: cannot write to standard output: No space left on device"),
        ("space show demo --json", ">/dev/full", 2, "error: cannot write to standard output"),
        ("--version", ">/dev/full", 2, "error: cannot write to standard output"),
        ("space show demo", ">&-", 0, ""),
        ("space show nowhere", ">&- <&-", 2, "error: no space 'nowhere'"),
        ("space show nowhere", "2>/dev/full", 2, ""),
        ("space show nowhere", "<&- >&- 2>&-", 2, ""),
        ("space show demo", "| exec 0<&-", 141, ""),
        ("space show demo --json", "| exec 0<&-", 141, ""),
        ("--help", "| exec 0<&-", 141, ""),
    ],
)
def test_streams_that_are_closed_or_full(words: str, shell: str, status: int, message: str) -> None:
    if "/dev/full" in shell and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    line = f"'{DMASK}' {words} {shell}; echo \"${{PIPESTATUS[0]}}\" >&3"
    done = run_command(["bash", "-c", f"exec 3>&1; {{ {line}; }} >/dev/null"])
    assert done.stdout == f"{status}\n"
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1:strict"])
def test_characters_that_the_encoding_does_not_have_are_replaced(encoding: str, tmp_path: Path) -> None:
    variables = os.environ | {"PYTHONIOENCODING": encoding}
    done = run_command([DMASK, "space", "show", "demo"], env=variables)
    assert done.returncode == 0, done.stderr
    assert "stem.width" in done.stdout
    done = run_command([DMASK, "space", "show", "spaces/中😀.yaml"], cwd=tmp_path, env=variables)
    assert done.returncode == 2
    assert "no space 'spaces/??.yaml'" in done.stderr
