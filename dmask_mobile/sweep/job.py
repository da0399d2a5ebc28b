"""One run of a sweep, made by child processes: the same function on this machine and in a Ray worker."""

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
SECONDS_FOR_LOCK = 60.0  # a command whose sweep was killed finishes its step before it lets go of the run folder
MAX_LAST_WORDS = 4096  # bytes of a log in which the reason of a failure is looked for

# Our command line. It also ends in order when the process that started it is gone: the pipe that is its stdin closes.
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
    """The sweep ends before this job has; its child process has ended and kept its checkpoint."""


def never() -> bool:
    """For jobs that nobody halts."""
    return False


@dataclass(frozen=True)
class Step:
    """A command of a run: ``is_done`` tells from the run folder whether it has finished there."""

    name: str
    command: tuple[str, ...]
    is_done: Callable[[Path], bool]


@dataclass(frozen=True)
class Job:
    """A run folder, the steps that make it, and where they work: data and costs of the user may be modules there."""

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
    """Whether a training has finished in the run folder. A damaged one has not: its command says what is wrong."""
    try:
        return RunFolder(folder).record().accuracy is not None
    except DmaskError:
        return False


def run_job(job: Job, threads: int, is_halted: Callable[[], bool] = never) -> str | None:
    """Why the job failed each time that it was tried; None when it is done. What is done already is skipped.

    Args:
        job: the run.
        threads: how many its processes may use, where the user's OMP_NUM_THREADS does not say.
        is_halted: asked now and then whether to end early.

    Raises:
        HaltedError: when it was halted.
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
    """Waits for an earlier command in the run folder that is ending; the next command refuses what takes too long."""
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
    """The exit status of a command whose output goes into the log; it is stopped when this is."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=working_folder,
        env={"OMP_NUM_THREADS": str(threads), **os.environ},
        start_new_session=True,  # Ctrl-C in a terminal reaches the sweep alone, which passes one signal on
    ) as process:
        try:
            while True:
                _check(is_halted)
                try:
                    return process.wait(SECONDS_BETWEEN_LOOKS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.terminate()  # does nothing to a process that has ended
            process.wait()


def _check(is_halted: Callable[[], bool]) -> None:
    if is_halted():
        raise HaltedError


def _reason(step: str, status: int, log: Path, start: int) -> str:
    """How a step ended, and the last line that it wrote after byte ``start`` of the log."""
    with log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - MAX_LAST_WORDS))
        lines = file.read().decode("utf-8", "replace").split("\n")
    words = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if status < 0:
        how = f"was ended by {signal.Signals(-status).name}"
    else:
        how = f"ended with status {status}" if status else "ended without a result"
    return f"{step} {how}: {shown(words.removeprefix('error: '))}" if words else f"{step} {how}"
