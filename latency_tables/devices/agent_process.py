"""Supervises the process that runs the agent: starts it, sends bytes, waits for answers with a time limit, ends it.

It reports silence or the end of the process; `latency_tables.devices.agent_session` decides what this means for the
current request.
"""

from __future__ import annotations

import errno
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dmask_mobile.errors import DmaskError
from latency_tables.devices import agent
from latency_tables.devices.device import DeviceTroubleError
from latency_tables.processes import end_process

CLOSING_SECONDS = 10.0
LOOK_SECONDS = 1.0  # between two checks of the size of the process's stderr
STDERR_TAIL_BYTES = 2000
MAX_STDERR_BYTES = 2**20  # so that a runtime that warns at every run does not fill the disk
MAX_ANSWER_BYTES = 256 * 2**20  # a model's output as text; the largest output of a segmentation network has 60 MB
MARK = agent.MARK.encode()


class SilenceError(Exception):
    """The process gave no valid answer, as the message explains, and was killed."""


class DeathError(Exception):
    """The process ended; ``status`` as in `subprocess`; ``stderr``: the end of its error output."""

    def __init__(self, status: int, stderr: str) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.stderr = stderr


class AgentProcess:
    """One process at a time; after it has ended, the next exchange starts a new one.

    Args:
        command: the command that starts it.
        source: the first bytes that are sent to each new process.
        environment: the environment of the process; None for that of this process.
    """

    def __init__(self, command: Sequence[str], source: bytes, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.source = source
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it

    @property
    def pid(self) -> int | None:
        """The id of the running process; None if there is none."""
        return None if self._process is None else self._process.pid

    def exchange(self, content: bytes, patience: float, limit: float) -> bytes:
        """The answer to a line.

        Args:
            content: the line to send.
            patience: the seconds within which the process must read more of it.
            limit: the seconds within which the process must answer.

        Raises:
            SilenceError: if it does not answer in time, or its answer does not end.
            DeathError: if the process ends.
            DmaskError: if the command cannot be started.
        """
        if self._process is None:
            self._start(patience)
        self._bound_stderr()
        try:
            self._send(content, patience)
            answer = self._answer(limit)
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise self._death()
        return answer

    def end(self) -> None:
        """Kills the process."""
        if self._process is not None:
            process, self._process = self._process, None
            end_process(process)

    def close(self) -> None:
        """Ends the process properly: closes its stdin and waits for some seconds."""
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSING_SECONDS)
        self.end()
        self._stderr.close()

    def _start(self, patience: float) -> None:
        self._clear_stderr()
        # A separate session: Ctrl-C must reach only this process, which finishes the current sample.
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=self.environment,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            problem = f"'{self.command[0]}' does not start: {error.strerror}"
            if errno.errorcode.get(error.errno or 0) in agent.TROUBLES:
                raise DeviceTroubleError(problem, "close other programs of this machine") from error
            raise DmaskError(problem, "set --python to a Python with the runtime") from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        with suppress(BrokenPipeError):  # the exchange detects that it has ended
            self._send(self.source, patience)

    def _send(self, content: bytes, patience: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        stdin, left = self._process.stdin.fileno(), memoryview(content)
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            while left:
                if not selector.select(patience):
                    raise self._silence(f"no answer for {patience:.0f} s")
                left = left[os.write(stdin, left) :]

    def _answer(self, seconds: float) -> bytes:
        """The next answer; empty if the process ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        end, text = time.monotonic() + seconds, bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while len(text) <= MAX_ANSWER_BYTES:
                left = end - time.monotonic()
                if left <= 0:  # also if it keeps writing without a newline
                    raise self._silence(f"no answer for {seconds:.0f} s")
                if not selector.select(min(left, LOOK_SECONDS)):
                    self._bound_stderr()
                    continue
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    return b""
                text += chunk
                # A login script may have written other lines and the beginning of this line.
                begin = text.find(MARK)
                del text[: begin if begin >= 0 else -len(MARK)]
                if begin >= 0 and b"\n" in chunk and (newline := text.find(b"\n")) >= 0:
                    return bytes(text[len(MARK) : newline])
        raise self._silence(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")

    def _silence(self, how: str) -> SilenceError:
        self.end()
        return SilenceError(how)

    def _death(self) -> DeathError:
        assert self._process is not None
        status = self._process.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_TAIL_BYTES))
        stderr = self._stderr.read().decode(errors="replace")
        self.end()
        return DeathError(status, stderr)

    def _bound_stderr(self) -> None:
        if os.fstat(self._stderr.fileno()).st_size > MAX_STDERR_BYTES:
            self._clear_stderr()

    def _clear_stderr(self) -> None:
        self._stderr.seek(0)  # the process inherits the file position
        self._stderr.truncate()
