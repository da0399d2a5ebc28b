"""This machine: models run in a child process, so that a runtime's crash or hang costs one measurement."""

from __future__ import annotations

import itertools
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from latency_tables.devices.device import DeviceInfo, MeasuringError, Samples
from latency_tables.runtimes.runtime import Runtime

AGENT = Path(__file__).parents[1] / "agent.py"
PATIENCE_SECONDS = 60.0  # beyond what was asked for: loading, warm-up, five runs of a slow model


class AgentSession:
    """`Session` over a process that runs the agent; a new one takes over where one died.

    Args:
        command: what starts the agent.
        folder: where model files are put.
        patience: seconds to wait beyond the sampling time before a silent agent is killed.
    """

    def __init__(self, command: list[str], folder: Path, suffix: str, patience: float = PATIENCE_SECONDS) -> None:
        self.command = command
        self.folder = folder
        self.suffix = suffix
        self.patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._held: set[str] = set()  # keys that the living process has loaded
        self._paths: dict[str, Path] = {}

    def load(self, key: str, model: bytes) -> None:
        """Makes a model ready; see `Session`."""
        path = self.folder / f"{next(self._numbers)}{self.suffix}"
        path.write_bytes(model)
        self._paths[key] = path
        self._load(key)

    def sample(self, key: str, seconds: float) -> Samples:
        """Times the model; see `Session`."""
        if self._process is None or key not in self._held:
            self._load(key)
        answer = self._ask({"do": "sample", "key": key, "seconds": seconds}, seconds)
        return Samples(tuple(answer["wall_ms"]), tuple(answer["cpu_ms"]))

    def unload(self, key: str) -> None:
        """Forgets the model; see `Session`."""
        path = self._paths.pop(key, None)
        if path is not None:
            path.unlink()
        if key in self._held:
            self._held.discard(key)
            with suppress(MeasuringError):  # an agent that died holds nothing
                self._ask({"do": "unload", "key": key}, 0.0)

    def close(self) -> None:
        """Ends the agent."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._held = set()
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # closing flushes what a dead agent will never read
                pipe.close()
        process.wait()

    def _load(self, key: str) -> None:
        self._ask({"do": "load", "key": key, "path": str(self._paths[key])}, 0.0)
        self._held.add(key)

    def _ask(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        if self._process is None:
            # A session of its own: Ctrl-C must reach this process alone, which finishes the sample under way.
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answer(seconds + self.patience)
        except BrokenPipeError:
            line = b""
        if not line:
            raise MeasuringError(self._describe_death(), "the session goes on with the next model")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasuringError(answer["error"])
        return answer

    def _answer(self, seconds: float) -> bytes:
        """The next line of the agent; nothing when it died; kills it when it says nothing for so long."""
        assert self._process is not None
        assert self._process.stdout is not None
        end, line = time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.close()
                    raise MeasuringError(f"no answer for {seconds:.0f} s: it hangs", "it was killed")
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    return b""
                line += chunk
        return line

    def _describe_death(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"the runtime crashed ({cause})"


class LocalDevice:
    """`Device` for the machine that runs this process."""

    def describe(self) -> DeviceInfo:
        """Processor, operating system, number of cores."""
        return DeviceInfo(f"{_processor()} ({platform.machine()})", platform.system(), os.cpu_count() or 1)

    @contextmanager
    def open(self, runtime: Runtime, threads: int) -> Iterator[AgentSession]:
        """A child process of this one."""
        command = [sys.executable, "-P", str(AGENT), runtime.name, str(threads)]
        with tempfile.TemporaryDirectory(prefix="dmask-") as folder:
            session = AgentSession(command, Path(folder), runtime.suffix)
            try:
                yield session
            finally:
                session.close()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
