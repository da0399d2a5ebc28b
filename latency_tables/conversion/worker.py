"""A process that converts models, controlled by JSON lines; several of them use all cores."""

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
    """A model, or the reason why there is none: a ``failure`` of its conversion, or a ``shortage`` of the machine."""

    model: bytes = b""
    failure: str = ""
    shortage: str = ""


class KilledError(Exception):
    """The process was killed from outside during a conversion."""


class ConverterProcess:
    """A process that converts one model at a time. It is started immediately and is ready a few seconds later.

    Args:
        runtime: the name of the runtime.
        precision: of the models.
        folder: the folder for the converter's temporary files.
    """

    def __init__(self, runtime: str, precision: str, folder: Path) -> None:
        # A separate session, so that Ctrl-C reaches only the parent.
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
        """Sends a subject in JSON to the process."""
        assert self._process.stdin is not None
        self.started = time.monotonic()
        with suppress(BrokenPipeError):  # `answer` reports how it ended
            self._process.stdin.write(json.dumps(subject).encode() + b"\n")
            self._process.stdin.flush()

    def fileno(self) -> int:
        """The file descriptor that becomes readable when there is an answer."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def seconds(self) -> float:
        """The seconds since the last subject was sent."""
        return time.monotonic() - self.started

    def answer(self) -> Answer:
        """The answer of the process for the subject.

        Raises:
            KilledError: if it was killed from outside.
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
        """Ends the process and the programs that it has started."""
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

        torch.set_num_threads(1)  # there is one process for each core
        runtime, precision = runtime_named(sys.argv[1]), sys.argv[2]
        return Answer(convert_subject(SUBJECT.validate_json(line), runtime, precision))  # type: ignore[arg-type]
    except Exception as error:  # a converter may raise any exception, and the next model must still be converted
        reason = f"{type(error).__name__}: {error}"
        return Answer(shortage=reason) if is_shortage(error) else Answer(failure=reason)


def _end_with_stdin() -> None:
    """Ends this process and the programs that it has started when the parent has ended, even during a conversion."""
    requests = select.poll()
    requests.register(0, 0)  # no event is requested, so that only a hang-up is reported
    requests.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)
