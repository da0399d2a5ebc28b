"""What our processes that answer over their stdout have in common; `latency_tables.devices.agent` cannot import it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import BinaryIO

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # nothing crashes by these


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that has pipes for its stdin and stdout, and closes them."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):  # closing flushes what a dead process will never read
            pipe.close()
    process.wait()


def take_stdout() -> BinaryIO:
    """The stdout of this process, for answers alone: what a library prints from now on goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def killed_by(status: int) -> str:
    """The name of the signal from outside that ended a process; empty when it ended in another way.

    ``status``: negative as `subprocess` tells it, or 128 and the signal's number as a shell does.
    """
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in OUTSIDE else ""
