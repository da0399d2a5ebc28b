"""Functions for child processes that answer over stdout; `latency_tables.devices.agent` cannot import them."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import BinaryIO

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # a crash never ends a process by one of these


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that has pipes for its stdin and stdout, and closes them."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):  # closing flushes data that an ended process will never read
            pipe.close()
    process.wait()


def take_stdout() -> BinaryIO:
    """The stdout of this process, used only for answers; from now on, output of libraries goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def killed_by(status: int) -> str:
    """The name of the signal from outside that ended a process; empty if it ended in another way.

    ``status``: negative as in `subprocess`, or 128 plus the number of the signal as in a shell.
    """
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in OUTSIDE else ""
