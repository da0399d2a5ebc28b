"""A session with a process that runs the agent, on this machine or over a connection: its requests and answers."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from latency_tables.devices import agent
from latency_tables.devices.agent_process import AgentProcess, DeathError, SilenceError
from latency_tables.devices.device import DeviceLostError, DeviceTroubleError, MeasuringError, Samples
from latency_tables.devices.retry import retried
from latency_tables.devices.trouble import killed_twice, lacking_in
from latency_tables.processes import killed_by
from latency_tables.runtimes.runtime import Runtime

PATIENCE_SECONDS = 60.0  # beyond the requested time: for loading, warm-up, five runs of a slow model
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before each new attempt after a lost connection
SOURCE = Path(agent.__file__).read_bytes()
BOOTSTRAP = (
    "import sys; sys.path[:] = [p for p in sys.path if p];"  # else a numpy.py in the current folder would be used
    " exec(compile(sys.stdin.buffer.read({size}), 'agent.py', 'exec'), {{'__name__': '__main__'}})"
)
QUICK_SECONDS: dict[tuple[str, ...], float] = {}
"""By the command of an agent: what its machine takes for a probe when nothing slows it down, as the last one found."""
T = TypeVar("T")


def agent_command(
    python: Sequence[str], runtime: Runtime, threads: int, delegate: str, cores: Sequence[int] | None
) -> list[str]:
    """The command that runs the agent with ``python``, which first reads the agent's source from its stdin.

    ``cores``: the cores to use; empty: the last ones, as many as threads; None: those on which it is started.
    """
    pinned = agent.AS_STARTED if cores is None else ",".join(map(str, cores))
    return [*python, "-c", BOOTSTRAP.format(size=len(SOURCE)), runtime.name, str(threads), delegate, pinned]


def never_lost(status: int, stderr: str) -> str | None:
    """The ``link`` of a process on this machine: if it ends, the runtime has crashed."""
    return None


class _LinkLostError(Exception):
    """The connection was lost; it can be tried again."""


class _KilledError(Exception):
    """The process was killed from outside, for example by a system without memory; it can be tried again."""


class AgentSession:
    """`Session` with a process that runs the agent; a new process replaces one that has ended.

    A lost connection is tried again for about a minute, and the current request is sent again. A request whose process
    was killed from outside is also sent again, once.

    Args:
        command: the command that starts the agent: that of `agent_command`, possibly with ``ssh`` before it.
        link: a function of the exit status and the end of stderr of an ended process that returns why the connection
            was lost, or None if it was not. A silent process that was killed has the status ``-SIGKILL``.
        patience: the seconds to wait beyond the sampling time before a silent agent is killed.
        pauses: the seconds to wait before each new attempt after a lost connection.
        folder: the folder for the models of a process on this machine, because a crashed process cannot remove them.
        asks_twice: send a request without an answer again before a failure of the model is recorded, because a
            connection may be interrupted for a while without notice.
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
        self.process = AgentProcess(command, SOURCE, None if folder is None else {**os.environ, "TMPDIR": folder})
        self.folder = folder
        self.link = link
        self.patience = patience
        self.pauses = pauses
        self.asks_twice = asks_twice
        self._silences = 0  # the number of silences for the current request
        self._held: set[str] = set()  # keys of models that the running process has loaded
        self._models: dict[str, bytes] = {}

    def describe(self) -> dict[str, Any]:
        """The agent's description of its machine; see `latency_tables.devices.agent.describe`.

        Raises:
            MeasuringError: if there is no such Python, or no runtime.
            DeviceLostError: if there is no connection.
        """
        return self._connected(lambda: self._ask({"do": "describe"}))

    def survey(self) -> dict[str, Any]:
        """The agent's description of its machine and of every runtime there; see `latency_tables.devices.agent.survey`.

        Raises:
            MeasuringError: if there is no Python that runs it.
            DeviceLostError: if there is no connection.
        """
        return self._connected(lambda: self._ask({"do": "survey"}))

    def load(self, key: str, model: bytes) -> None:
        """Makes a model ready; see `Session`."""
        self._models[key] = model
        self._connected(lambda: self._load(key))

    def sample(self, key: str, seconds: float) -> Samples:
        """Times the model; see `Session`."""
        answer = self._of_model("sample", key, seconds)
        QUICK_SECONDS[tuple(self.process.command)] = answer["quick_s"]
        wall_ms, cpu_ms = tuple(answer["wall_ms"]), tuple(answer["cpu_ms"])
        return Samples(wall_ms, cpu_ms, loops=answer["loops"], slowed=answer["slowed"])

    def output(self, key: str) -> list[float]:
        """The model's output for the agent's input, which is the same on every machine.

        Raises:
            MeasuringError: if the runtime fails, crashes or hangs.
        """
        output: list[float] = self._of_model("output", key)["output"]
        return output

    def shares(self, key: str) -> dict[str, float]:
        """The shares of operations as estimated by the runtime; see `EstimatingSession`."""
        shares: dict[str, float] = self._of_model("shares", key)["shares"]
        return shares

    def meter(self, metric: str, model: bytes, warm_up: bytes) -> float:
        """The metric of a model, measured by a second agent; see `MeteringSession`."""
        models = {"model": base64.b64encode(model).decode(), "warm_up": base64.b64encode(warm_up).decode()}
        another = AgentSession(
            self.process.command, self.link, self.patience, self.pauses, self.folder, self.asks_twice
        )
        with closing(another):
            answer = another._connected(lambda: another._ask({"do": "meter", "metric": metric, **models}))
        return float(answer["value"])

    def unload(self, key: str) -> None:
        """Removes the model; see `Session`."""
        self._models.pop(key, None)
        if key in self._held:
            self._held.discard(key)
            # An agent that has ended has no models.
            with suppress(MeasuringError, DeviceTroubleError, _LinkLostError, _KilledError):
                self._ask({"do": "unload", "key": key})

    def conditions(self) -> None:
        """None: computers report no conditions; see `Session`."""
        return

    def close(self) -> None:
        """Ends the agent, which removes its models when its stdin ends."""
        self.process.close()

    def _connected(self, action: Callable[[], T]) -> T:
        """The result of ``action``, which is repeated while the connection is lost, and once after a kill."""
        self._silences = 0
        try:
            return retried(lambda: retried(action, (0.0,), _KilledError), self.pauses, _LinkLostError)
        except _LinkLostError as error:
            raise DeviceLostError(
                f"{error} (tried {len(self.pauses) + 1} times)",
                "what was measured is kept; when the device is back, the same command continues",
            ) from error
        except _KilledError as error:
            raise killed_twice(str(error)) from error

    def _of_model(self, do: str, key: str, seconds: float = 0.0) -> dict[str, Any]:
        def asked() -> dict[str, Any]:
            if self.process.pid is None or key not in self._held:
                self._load(key)
            return self._ask({"do": do, "key": key, "seconds": seconds}, seconds)

        return self._connected(asked)

    def _load(self, key: str) -> None:
        model = base64.b64encode(self._models[key]).decode()
        quick_s = QUICK_SECONDS.get(tuple(self.process.command), 0.0)
        self._ask({"do": "load", "key": key, "model": model, "quick_s": quick_s})
        self._held.add(key)

    def _ask(self, request: dict[str, Any], seconds: float = 0.0) -> dict[str, Any]:
        """The answer to a request; ``seconds``: the time that it needs beyond the patience."""
        limit = seconds + self.patience
        line = json.dumps({**request, "limit": limit}).encode() + b"\n"
        try:
            answer: dict[str, Any] = json.loads(self.process.exchange(line, self.patience, limit))
        except SilenceError as silence:
            self._held.clear()
            raise self._meaning_of_silence(silence) from None
        except DeathError as death:
            self._held.clear()
            raise self._meaning_of_death(death) from None
        if "error" in answer:
            error, cause = answer["error"], answer["cause"]
            raise lacking_in(error, cause) or MeasuringError(error, cause=cause)
        return answer

    def _meaning_of_silence(self, silence: SilenceError) -> Exception:
        lost = self.link(-signal.SIGKILL, "")
        self._silences += 1
        if lost is not None or (self.asks_twice and self._silences == 1):
            return _LinkLostError(lost or str(silence))
        return MeasuringError(f"{silence}: it hangs", "it was killed")

    def _meaning_of_death(self, death: DeathError) -> Exception:
        lost = self.link(death.status, death.stderr)
        if lost is not None:
            return _LinkLostError(lost)
        if killer := killed_by(death.status):
            return _KilledError(killer)
        if trouble := lacking_in(death.stderr):
            return trouble
        cause = signal.Signals(-death.status).name if death.status < 0 else f"exit status {death.status}"
        reason = ": ".join([f"the runtime crashed ({cause})", *death.stderr.strip().splitlines()[-1:]])
        return MeasuringError(reason, "the session continues with the next model")
