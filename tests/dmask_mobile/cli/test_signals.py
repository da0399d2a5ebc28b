"""Signals at any moment of a command: the exit status says which, within seconds, and no traceback is shown."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import DMASK, HANG_SECONDS

WORK = """
import sys
from dmask_mobile.cli import main, outcome
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.cli.progress import ShownProgress

def begun():
    print("begun", flush=True)

def waiting():
    import time
    try:
        begun()
        time.sleep(1000)
    finally:
        print("undone", flush=True)

def swallowing():
    import time
    try:
        waiting()
    except BaseException:
        pass
    return 0

def taking_it_for_a_failure():
    try:
        waiting()
    except BaseException as error:
        raise RuntimeError("no conversion") from error

def swallowing_between_steps():
    swallowing()
    with ShownProgress() as progress:
        progress("export", 1, 2)
    print("went on")

def never_returning():
    import hashlib, threading
    threading.Timer(0.5, begun).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def finalizing():
    import time

    class Slow:
        def __del__(self):
            begun()
            time.sleep(1000)

    Slow()
    time.sleep(1000)

def importing():
    sys.path.insert(0, sys.argv[2])
    import slow_module

def taking_a_step():
    import time
    with stop_signals() as stopped_by:
        begun()
        while not stopped_by():
            time.sleep(0.01)
        raise StoppedError(stopped_by(), "the search")

def done_before_it_could_stop():
    import time
    with stop_signals():
        begun()
        sys.stdin.readline()
    print("went on")

if __name__ == "__main__":
    work = globals()[sys.argv[1]]
    outcome._run = lambda arguments: work() or 0
    main()
"""


def started(work: str, *arguments: object) -> subprocess.Popen[str]:
    """A running command that has begun to do ``work``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, work, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def assert_stopped(process: subprocess.Popen[str], number: signal.Signals, reply: str | None = None) -> str:
    """The rest of its standard output."""
    out, err = process.communicate(reply, timeout=HANG_SECONDS)
    assert process.returncode == 128 + number, err
    assert f"stopped by {number.name}" in err
    assert "Traceback" not in err
    assert "ignored" not in err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_is_undone_and_the_status_says_which_signal(number: signal.Signals) -> None:
    process = started("waiting")
    process.send_signal(number)
    assert assert_stopped(process, number) == "undone\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "work", ["swallowing", "taking_it_for_a_failure", "swallowing_between_steps", "never_returning", "finalizing"]
)
def test_a_signal_that_a_library_swallows_ends_the_command(work: str) -> None:
    process = started(work)
    process.send_signal(signal.SIGINT)
    assert "went on" not in assert_stopped(process, signal.SIGINT)


@pytest.mark.slow
def test_a_signal_inside_an_import_ends_the_process_before_an_exception_can_abort_it(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import time\nprint('begun', flush=True)\ntry:\n    time.sleep(1000)\nfinally:\n    print('raised')\n"
    )
    process = started("importing", tmp_path)
    process.send_signal(signal.SIGTERM)
    assert assert_stopped(process, signal.SIGTERM) == ""


@pytest.mark.slow
def test_a_step_that_must_be_kept_takes_the_signal_itself() -> None:
    process = started("taking_a_step")
    process.send_signal(signal.SIGTERM)
    assert_stopped(process, signal.SIGTERM)


@pytest.mark.slow
def test_a_signal_that_came_too_late_for_a_step_stops_what_follows() -> None:
    """This happens between the stages of ``dmask demo``."""
    process = started("done_before_it_could_stop")
    process.send_signal(signal.SIGINT)
    assert assert_stopped(process, signal.SIGINT, reply="\n") == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command", [["space", "show", "demo"], ["export", "fbnetv2_f1", "-o", "run"], ["demo"], ["devices"]]
)
def test_the_real_commands_at_many_moments(command: list[str], number: signal.Signals, tmp_path: Path) -> None:
    """The start of Python, before our code runs, cannot be changed; the first delay is the duration of this start."""
    for seconds in (0.3, 0.5, 0.8, 1.2, 2.0, 3.0):
        process = subprocess.Popen(
            [DMASK, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            assert_stopped(process, number)
        else:  # it was faster
            assert (process.returncode, bool(out)) == (0, True), err
