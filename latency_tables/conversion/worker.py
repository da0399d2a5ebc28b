"""A process that converts models, driven by JSON lines; with several of them all cores convert."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from latency_tables.processes import end_process, killed_by, take_stdout
from latency_tables.shortage import is_shortage

START = "from latency_tables.conversion.worker import main; main()"


class Answer(NamedTuple):
    """A model, or why there is none: a ``failure`` of its conversion, or a ``shortage`` of the machine."""

    model: bytes = b""
    failure: str = ""
    shortage: str = ""


class KilledError(Exception):
    """A process that was killed from outside while it converted."""


class ConverterProcess:
    """Started at once; ready a few seconds later. One model at a time.

    Args:
        runtime: the name of the runtime.
        precision: of the models.
        folder: where the converter keeps its temporary files.
    """

    def __init__(self, runtime: str, precision: str, folder: Path) -> None:
        # A session of its own: Ctrl-C must reach the parent alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, runtime, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,
        )
        self.started = time.monotonic()

    def start(self, subject: Any) -> None:
        """Gives it a subject in JSON."""
        assert self._process.stdin is not None
        self.started = time.monotonic()
        with suppress(BrokenPipeError):  # `answer` says how it ended
            self._process.stdin.write(json.dumps(subject).encode() + b"\n")
            self._process.stdin.flush()

    def fileno(self) -> int:
        """What becomes readable when there is an answer."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def seconds(self) -> float:
        """Since it was given a subject."""
        return time.monotonic() - self.started

    def answer(self) -> Answer:
        """What it makes of the subject.

        Raises:
            KilledError: when it was killed from outside.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            found = json.loads(line)
            return Answer(base64.b64decode(found["model"]), found["failure"], found["shortage"])
        status = self._process.wait()
        if killer := killed_by(status):
            raise KilledError(killer)
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Answer(failure=f"the converter crashed ({cause})")

    @property
    def alive(self) -> bool:
        """Whether it can convert more."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process, and the programs that it has started."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        end_process(self._process)


def main() -> None:
    """Answers each subject on stdin with a line until stdin ends."""
    answers = take_stdout()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    for line in sys.stdin:
        answer = _converted(line)._asdict()
        answer["model"] = base64.b64encode(answer["model"]).decode()
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _converted(line: str) -> Answer:
    try:
        import torch

        from latency_tables.conversion.subjects import SUBJECT, convert_subject
        from latency_tables.runtimes.registry import runtime_named

        torch.set_num_threads(1)  # there are as many processes as cores
        runtime, precision = runtime_named(sys.argv[1]), sys.argv[2]
        return Answer(convert_subject(SUBJECT.validate_json(line), runtime, precision))  # type: ignore[arg-type]
    except Exception as error:  # whatever a converter raises, the next model must still be converted
        reason = f"{type(error).__name__}: {error}"
        return Answer(shortage=reason) if is_shortage(error) else Answer(failure=reason)


def _end_with_stdin() -> None:
    """Ends this process and the programs that it has started as soon as the parent is gone, also while it converts."""
    requests = select.poll()
    requests.register(0, 0)  # asks for no event, which leaves the hang-up
    requests.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)
