"""A session over a process that runs the agent, here or at the other end of a connection."""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dmask_mobile.errors import DmaskError
from latency_tables.devices import agent
from latency_tables.devices.device import DeviceLostError, MeasuringError, Samples
from latency_tables.devices.retry import retried
from latency_tables.processes import end_process
from latency_tables.runtimes.runtime import Runtime

PATIENCE_SECONDS = 60.0  # beyond what was asked for: loading, warm-up, five runs of a slow model
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before a lost connection is tried again
CLOSING_SECONDS = 10.0
STDERR_TAIL_BYTES = 2000
SOURCE = Path(agent.__file__).read_bytes()
BOOTSTRAP = (
    "import sys; sys.path[:] = [p for p in sys.path if p];"  # else a numpy.py in the folder at hand would be taken
    " exec(compile(sys.stdin.buffer.read({size}), 'agent.py', 'exec'), {{'__name__': '__main__'}})"
)
T = TypeVar("T")


def agent_command(
    python: Sequence[str], runtime: Runtime, threads: int, delegate: str, cores: Sequence[int] | None
) -> list[str]:
    """The command that runs the agent with ``python``, which takes the agent's source from its stdin first.

    ``cores``: to stay on; none: the last ones, as many as threads; None: those that it is started on.
    """
    pinned = agent.AS_STARTED if cores is None else ",".join(map(str, cores))
    return [*python, "-c", BOOTSTRAP.format(size=len(SOURCE)), runtime.name, str(threads), delegate, pinned]


def never_lost(status: int, stderr: str) -> str | None:
    """The ``link`` of a process on this machine: when it dies, the runtime has crashed."""
    return None


class _LinkLostError(Exception):
    """The connection has ended; it can be tried again."""


class AgentSession:
    """`Session` over a process that runs the agent; a new one takes over where one died.

    A lost connection is tried again for about a minute, and the request under way is given again.

    Args:
        command: what starts the agent: that of `agent_command`, behind ``ssh`` say.
        link: from the exit status and the end of stderr of a dead process, why the connection was lost; None when it
            was not. A silent process that was killed has the status ``-SIGKILL``.
        patience: seconds to wait beyond the sampling time before an agent that says or takes nothing is killed.
        pauses: seconds to wait before each time that a lost connection is tried again.
        folder: of this machine, for the models of a process of this machine: one that crashed cannot remove them.
        asks_twice: an request that is met with silence is given again, and only then a model is blamed: a link may be
            away for a while without a sign.
    """

    def __init__(
        self,
        command: Sequence[str],
        link: Callable[[int, str], str | None] = never_lost,
        patience: float = PATIENCE_SECONDS,
        pauses: Sequence[float] = PAUSES_SECONDS,
        folder: str | None = None,
        asks_twice: bool = False,
    ) -> None:
        self.command = list(command)
        self.link = link
        self.patience = patience
        self.pauses = pauses
        self.environment = None if folder is None else {**os.environ, "TMPDIR": folder}
        self.asks_twice = asks_twice
        self._silences = 0  # with which the request under way was met
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._held: set[str] = set()  # keys that the living process has loaded
        self._models: dict[str, bytes] = {}

    def describe(self) -> dict[str, Any]:
        """What the agent says of its machine; see `latency_tables.devices.agent.describe`.

        Raises:
            MeasuringError: when there is no such Python, or no runtime.
            DeviceLostError: when there is no connection.
        """
        return self._connected(lambda: self._ask({"do": "describe"}, 0.0))

    def survey(self) -> dict[str, Any]:
        """What the agent says of its machine and of every runtime there; see `latency_tables.devices.agent.survey`.

        Raises:
            MeasuringError: when there is no Python that runs it.
            DeviceLostError: when there is no connection.
        """
        return self._connected(lambda: self._ask({"do": "survey"}, 0.0))

    def load(self, key: str, model: bytes) -> None:
        """Makes a model ready; see `Session`."""
        self._models[key] = model
        self._connected(lambda: self._load(key))

    def sample(self, key: str, seconds: float) -> Samples:
        """Times the model; see `Session`."""
        answer = self._of_model("sample", key, seconds)
        return Samples(tuple(answer["wall_ms"]), tuple(answer["cpu_ms"]))

    def output(self, key: str) -> list[float]:
        """What the model makes of the agent's input, which is the same on every machine.

        Raises:
            MeasuringError: when the runtime fails, crashes or hangs.
        """
        output: list[float] = self._of_model("output", key)["output"]
        return output

    def shares(self, key: str) -> dict[str, float]:
        """Shares of operations that the runtime estimates; see `Session`."""
        shares: dict[str, float] = self._of_model("shares", key)["shares"]
        return shares

    def unload(self, key: str) -> None:
        """Forgets the model; see `Session`."""
        self._models.pop(key, None)
        if key in self._held:
            self._held.discard(key)
            with suppress(MeasuringError, _LinkLostError):  # an agent that died holds nothing
                self._ask({"do": "unload", "key": key}, 0.0)

    def conditions(self) -> None:
        """None: computers say nothing of themselves; see `Session`."""
        return

    def close(self) -> None:
        """Ends the agent, which removes its models when its stdin ends."""
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSING_SECONDS)
        self._end_process()
        self._stderr.close()

    def _connected(self, action: Callable[[], T]) -> T:
        """What ``action`` gives, again and again while the connection is lost."""
        self._silences = 0
        try:
            return retried(action, self.pauses, _LinkLostError)
        except _LinkLostError as error:
            raise DeviceLostError(
                f"{error} (tried {len(self.pauses) + 1} times)",
                "what was measured is kept; when the device is back, the same command goes on",
            ) from error

    def _of_model(self, do: str, key: str, seconds: float = 0.0) -> dict[str, Any]:
        def asked() -> dict[str, Any]:
            if self._process is None or key not in self._held:
                self._load(key)
            return self._ask({"do": do, "key": key, "seconds": seconds}, seconds)

        return self._connected(asked)

    def _load(self, key: str) -> None:
        model = base64.b64encode(self._models[key]).decode()
        self._ask({"do": "load", "key": key, "model": model}, 0.0)
        self._held.add(key)

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            self._start()
            limit = seconds + self.patience
            self._send(json.dumps({**request, "limit": limit}).encode() + b"\n")
            line = self._answer(limit)
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasuringError(answer["error"])
        return answer

    def _start(self) -> None:
        """Starts a process where none is living, and gives it the agent's source."""
        if self._process is not None:
            return
        self._stderr.seek(0)  # the process inherits the place as well
        self._stderr.truncate()
        # A session of its own: Ctrl-C must reach this process alone, which finishes the sample under way.
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
            raise DmaskError(
                f"'{self.command[0]}' does not start: {error.strerror}", "give --python a Python with the runtime"
            ) from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._send(SOURCE)

    def _send(self, content: bytes) -> None:
        """Gives the process bytes. Kills it when it takes none for so long as `patience`."""
        assert self._process is not None
        assert self._process.stdin is not None
        stdin, left = self._process.stdin.fileno(), memoryview(content)
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            while left:
                if not selector.select(self.patience):
                    raise self._silence(self.patience)
                left = left[os.write(stdin, left) :]

    def _answer(self, seconds: float) -> bytes:
        """The agent's next answer; nothing when it died. Kills it when it says nothing for so long."""
        assert self._process is not None
        assert self._process.stdout is not None
        end, text = time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise self._silence(seconds)
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    return b""
                text += chunk
                *lines, text = text.split(b"\n")
                for line in lines:  # a login script may have written others, and the beginning of this one
                    _, mark, answer = line.partition(agent.MARK.encode())
                    if mark:
                        return answer

    def _silence(self, seconds: float) -> Exception:
        """Why the process said or took nothing for ``seconds``; it is killed."""
        self._end_process()
        lost, silence = self.link(-signal.SIGKILL, ""), f"no answer for {seconds:.0f} s"
        self._silences += 1
        if lost is not None or (self.asks_twice and self._silences == 1):
            return _LinkLostError(lost or silence)
        return MeasuringError(f"{silence}: it hangs", "it was killed")

    def _death(self) -> Exception:
        """Why the process died."""
        assert self._process is not None
        status = self._process.wait()
        stderr = self._stderr_tail()
        self._end_process()
        lost = self.link(status, stderr)
        if lost is not None:
            return _LinkLostError(lost)
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        last = stderr.strip().splitlines()[-1:]
        reason = ": ".join([f"the runtime crashed ({cause})", *last])
        return MeasuringError(reason, "the session goes on with the next model")

    def _stderr_tail(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_TAIL_BYTES))
        return self._stderr.read().decode(errors="replace")

    def _end_process(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        self._held = set()
        end_process(process)
