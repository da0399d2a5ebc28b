"""A process that converts models, driven by JSON lines; with several of them all cores convert."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from typing import Any

from latency_tables.processes import end_process, take_stdout

MAX_SECONDS = 300.0
START = "from latency_tables.conversion.worker import main; main()"


class ConverterProcess:
    """Started at once; ready a few seconds later."""

    def __init__(self, runtime: str, precision: str) -> None:
        # A session of its own: Ctrl-C must reach the parent alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, runtime, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def convert(self, subject: Any) -> bytes | None:
        """The model of a subject in JSON; None where it cannot be converted, or not within five minutes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(MAX_SECONDS, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(subject).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            watch.cancel()
        if not line:  # dead, or about to be
            self._process.wait()
        return base64.b64decode(line) if line.strip() else None

    @property
    def alive(self) -> bool:
        """Whether it can convert more."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process."""
        end_process(self._process)


def main() -> None:
    """Answers each subject on stdin with a line: the model in base64, or nothing where the converter failed."""
    import torch

    from latency_tables.conversion.subjects import SUBJECT, convert_subject
    from latency_tables.runtimes.registry import runtime_named

    torch.set_num_threads(1)  # there are as many processes as cores
    runtime, precision = runtime_named(sys.argv[1]), sys.argv[2]
    answers = take_stdout()
    for line in sys.stdin:
        try:
            model = convert_subject(SUBJECT.validate_json(line), runtime, precision)  # type: ignore[arg-type]
        except Exception:  # the parent converts it again, and tells why it fails
            model = b""
        answers.write(base64.b64encode(model) + b"\n")
        answers.flush()
