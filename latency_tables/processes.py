"""What our processes that answer over their stdout have in common; `latency_tables.devices.agent` cannot import it."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import BinaryIO


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
