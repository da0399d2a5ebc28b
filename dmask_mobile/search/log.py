"""The log of a search: ``metrics.jsonl`` (one line an epoch), and the same numbers for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from dmask_mobile.records.base import write_atomically


class SearchLog:
    """The log of one search in ``folder``; use it in a ``with`` statement.

    Args:
        folder: receives ``metrics.jsonl`` and ``tensorboard/``.
        history: the epochs before this start. The last of them is written again, because the search may have been
            killed between its checkpoint and its log. TensorBoard discards what was written from that epoch on.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.history = history

    def __enter__(self) -> SearchLog:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # Not SummaryWriter: it writes in a thread, which prints its own traceback when the disk is full.
        folder = self.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._events: Any = RecordWriter(self._file)
        first_epoch = max(0, len(self.history) - 1)
        try:
            self._add(Event(step=first_epoch, file_version="brain.Event:2"))
            self._add(Event(step=first_epoch, session_log=SessionLog(status=SessionLog.START)))
            if self.history:
                self.write(self.history)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # an error was already reported when the write failed
            self._file.close()

    def write(self, history: list[dict[str, Any]]) -> None:
        """Writes the whole history to ``metrics.jsonl`` and the last epoch to TensorBoard."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        lines = "".join(json.dumps(line) + "\n" for line in history)
        write_atomically(self.folder / "metrics.jsonl", lines)
        last = history[-1]
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(last)]
        self._add(Event(step=last["epoch"], summary=Summary(value=values)))

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())
        self._events.flush()


def _scalars(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested line with a name such as ``group/name``; items of lists are numbered."""
    for name, value in line.items():
        tag = f"{prefix}/{name}" if prefix else name
        if isinstance(value, dict):
            yield from _scalars(value, tag)
        elif isinstance(value, list):
            yield from _scalars({str(number): item for number, item in enumerate(value)}, tag)
        elif isinstance(value, int | float) and name != "epoch":
            yield tag, float(value)
