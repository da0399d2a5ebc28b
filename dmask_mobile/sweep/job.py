"""One run of a sweep, made by child processes; this machine and Ray workers use the same function."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.files import locked
from dmask_mobile.run import RunFolder

ATTEMPTS = 2
LOG_NAME = "sweep.log"  # in the run folder
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_FOR_LOCK = 60.0  # a command whose sweep was killed finishes its step before it releases the run folder
MAX_LAST_WORDS = 4096  # bytes at the end of a log that are searched for the reason of a failure

# The command line. It also ends properly when the process that started it has ended, because its stdin closes then.
PROGRAM = """
import os, signal, threading

def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_parent, daemon=True).start()
from dmask_mobile.cli import main
main()
"""


class HaltedError(Exception):
    """The sweep was stopped before this job was done; its child process has written a checkpoint and ended."""


def never() -> bool:
    """False: for jobs that are never halted."""
    return False


@dataclass(frozen=True)
class Step:
    """A command of a run; ``is_done`` tells from the run folder whether the command has finished."""

    name: str
    command: tuple[str, ...]
    is_done: Callable[[Path], bool]


@dataclass(frozen=True)
class Job:
    """A run folder, its steps, and their working folder, which may contain the user's modules for data and costs."""

    name: str
    folder: Path
    steps: tuple[Step, ...]
    working_folder: Path = field(default_factory=Path.cwd)

    def is_done(self) -> bool:
        """Whether every step has finished."""
        return all(step.is_done(self.folder) for step in self.steps)


def dmask_command(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The command that runs ``dmask`` with these arguments in a process of its own."""
    return (sys.executable, "-P", "-c", PROGRAM, *arguments)


def is_searched(folder: Path) -> bool:
    """Whether a search has finished in the run folder."""
    return RunFolder(folder).search_result.exists()


def is_trained(folder: Path) -> bool:
    """Whether a training has finished in the run folder. A damaged one has not; its command reports the problem."""
    try:
        return RunFolder(folder).record().accuracy is not None
    except DmaskError:
        return False


def run_job(job: Job, threads: int, is_halted: Callable[[], bool] = never) -> str | None:
    """Runs the steps of a job that are not done yet; returns None, or the reason if every attempt failed.

    Args:
        job: the run.
        threads: the number of threads for its processes, unless the user has set OMP_NUM_THREADS.
        is_halted: is called regularly; the job stops early if it returns True.

    Raises:
        HaltedError: if it was halted.
    """
    reason = None
    for _ in range(ATTEMPTS):
        try:
            reason = _try(job, threads, is_halted)
        except OSError as error:
            reason = shown(error)
        if reason is None:
            return None
    return reason


def _try(job: Job, threads: int, is_halted: Callable[[], bool]) -> str | None:
    job.folder.mkdir(parents=True, exist_ok=True)
    _wait_until_free(job.folder, is_halted)
    with (job.folder / LOG_NAME).open("ab") as log:
        for step in job.steps:
            if step.is_done(job.folder):
                continue
            log.write(f"--- {now()} {step.name}\n".encode())
            log.flush()
            start = log.tell()
            status = _run(step.command, job.working_folder, log, threads, is_halted)
            if status or not step.is_done(job.folder):
                return _reason(step.name, status, job.folder / LOG_NAME, start)
    return None


def _wait_until_free(folder: Path, is_halted: Callable[[], bool]) -> None:
    """Waits until an earlier command has released the run folder; after too long, the next command reports it."""
    deadline = time.monotonic() + SECONDS_FOR_LOCK
    while time.monotonic() < deadline:
        _check(is_halted)
        try:
            with locked(folder, "dmask sweep"):
                return
        except DmaskError:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _run(
    command: tuple[str, ...], working_folder: Path, log: BinaryIO, threads: int, is_halted: Callable[[], bool]
) -> int:
    """Runs a command and returns its exit status; its output goes to the log, and it stops if the sweep stops."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=working_folder,
        env={"OMP_NUM_THREADS": str(threads), **os.environ},
        start_new_session=True,  # Ctrl-C in a terminal reaches only the sweep, which passes on one signal
    ) as process:
        try:
            while True:
                _check(is_halted)
                try:
                    return process.wait(SECONDS_BETWEEN_LOOKS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.terminate()  # has no effect on a process that has ended
            process.wait()


def _check(is_halted: Callable[[], bool]) -> None:
    if is_halted():
        raise HaltedError


def _reason(step: str, status: int, log: Path, start: int) -> str:
    """How a step ended, and the last line that it wrote to the log after byte ``start``."""
    with log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - MAX_LAST_WORDS))
        lines = file.read().decode("utf-8", "replace").split("\n")
    words = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    else:
        how = f"ended with status {status}" if status else "ended without a result"
    return f"{step} {how}: {shown(words.removeprefix('error: '))}" if words else f"{step} {how}"
