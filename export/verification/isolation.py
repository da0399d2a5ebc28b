"""Opens untrusted models in a separate process with a time limit.

A graph can loop forever, and a runtime can crash on a file. In both cases only the lines of that model are lost.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch import Tensor

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import ModelFormat
from export.formats.protocols import Counts, EndNames, ExportedModel

TIME_LIMIT_SECONDS = 600.0
"""The time limit of each request to a model: to open it, to run a few images, to count it."""
START = "from export.verification.isolation import main; main()"


class UnresponsiveError(DmaskError):
    """The process with the model was ended by the time limit or a crash."""


class ModelProcess:
    """A process that opens models, one at a time; it starts with the first model, and again after it has ended.

    Args:
        limit_s: the time limit of one answer, in seconds.
    """

    def __init__(self, limit_s: float = TIME_LIMIT_SECONDS) -> None:
        self.limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def open(self, model_format: ModelFormat, path: Path) -> ExportedModel:
        """The model at ``path``, opened in the process.

        Raises:
            DmaskError: if it cannot be loaded.
            UnresponsiveError: if opening it takes too long, or the process dies.
        """
        return IsolatedModel(self, model_format, path)

    def ask(self, what: str, path: Path, *given: object) -> Any:
        """The answer to one request.

        Raises:
            UnresponsiveError: if there is none within the time limit, or the process dies.
            DmaskError: if the model's reader raises it; other exceptions of the reader become RuntimeError.
        """
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(pickle.dumps((what, *given)))
            if not self._pipe.poll(self.limit_s):
                self.close()
                raise UnresponsiveError(
                    f"'{path}': no answer within {self.limit_s:g} s ({what}); it was stopped",
                    "if the model is that slow, raise the limit with --time-limit SECONDS",
                )
            answer, error = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 - of our own process
        except (EOFError, OSError):
            status = self.close()
            cause = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise UnresponsiveError(
                f"'{path}': its runtime ended the process that ran it ({what}, {cause})", "export it again"
            ) from None
        if error is not None:
            raise error
        return answer

    def close(self) -> int:
        """Ends the process and returns its exit status."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is None or pipe is None:
            return 0
        pipe.close()
        try:
            return process.wait(1)  # a crashed process has its own status
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        # A separate session, so that Ctrl-C reaches only the parent.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()


@contextmanager
def model_process(limit_s: float) -> Iterator[ModelProcess]:
    """A `ModelProcess` that ends with the ``with`` block."""
    process = ModelProcess(limit_s)
    try:
        yield process
    finally:
        process.close()


class IsolatedModel:
    """`ExportedModel` for a file that is opened in another process.

    After the process has ended, every further request raises the same error.
    """

    def __init__(self, process: ModelProcess, model_format: ModelFormat, path: Path) -> None:
        self._process = process
        self._path = path
        self._ended: UnresponsiveError | None = None
        self._ask("open", model_format, path)

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """See `ExportedModel`."""
        outputs: dict[str, Tensor] = self._ask("run", images)
        return outputs

    def predict(self, images: Tensor) -> dict[str, Tensor] | None:
        """See `export.formats.coreml.reader.CoreMLModel`; None for other formats."""
        outputs: dict[str, Tensor] | None = self._ask("predict", images)
        return outputs

    def names(self) -> EndNames | None:
        """See `ExportedModel`."""
        names: EndNames | None = self._ask("names")
        return names

    def unused_bytes(self) -> int:
        """See `ExportedModel`."""
        return int(self._ask("unused_bytes"))

    def counts(self) -> Counts | None:
        """See `ExportedModel`."""
        counts: Counts | None = self._ask("counts")
        return counts

    def stray_operations(self) -> dict[str, int]:
        """See `ExportedModel`."""
        found: dict[str, int] = self._ask("stray_operations")
        return found

    def metadata(self) -> dict[str, str]:
        """See `ExportedModel`."""
        metadata: dict[str, str] = self._ask("metadata")
        return metadata

    def intermediates(self, image: Tensor) -> Iterator[Tensor] | None:
        """See `ExportedModel`."""
        tensors: list[Tensor] | None = self._ask("intermediates", image)
        return None if tensors is None else iter(tensors)

    def _ask(self, what: str, *given: object) -> Any:
        if self._ended is not None:
            raise self._ended
        try:
            return self._process.ask(what, self._path, *given)
        except UnresponsiveError as error:
            self._ended = error
            raise


def main() -> None:
    """Answers requests over the pipe whose number is the first argument, until the other end is closed."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    pipe, model = Connection(int(sys.argv[1])), None
    while True:
        try:
            what, *given = pickle.loads(pipe.recv_bytes())  # noqa: S301 - of our own process
        except EOFError:
            return
        answer: Any = None
        error: Exception | None = None
        try:
            if what == "open":
                model = None  # avoids two large models in memory
                model = _open(*given)
            else:
                answer = _answer(model, what, given)
        except DmaskError as raised:
            error = DmaskError(raised.problem, raised.fix)
        except Exception as raised:  # runtimes have their own exceptions, which may not exist in the other process
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        pipe.send_bytes(pickle.dumps((answer, error)))


def _open(model_format: ModelFormat, path: Path) -> ExportedModel:
    from export.formats.registry import format_named

    return format_named(model_format).open(path)


def _answer(model: ExportedModel | None, what: str, given: list[Any]) -> Any:
    if what == "predict" and not hasattr(model, what):
        return None
    answer = getattr(model, what)(*given)
    return list(answer) if isinstance(answer, Iterator) else answer


def _end_with(parent: int) -> None:
    """Ends this process when its parent ends, even while a model runs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
