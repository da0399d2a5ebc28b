"""What a search writes about itself: ``metrics.jsonl`` (one line an epoch) and the same for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from dmask_mobile.records.base import write_atomically


class SearchLog:
    """The log of one search in ``folder``; use it in a ``with``.

    Args:
        folder: gets ``metrics.jsonl`` and ``tensorboard/``.
        history: the epochs before this start. Their last one is written again: the search may have been killed
            between its checkpoint and its log. TensorBoard forgets what was written from there on.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.history = history

    def __enter__(self) -> SearchLog:
        from torch.utils.tensorboard import SummaryWriter

        first_epoch = max(0, len(self.history) - 1)
        self._writer: Any = SummaryWriter(str(self.folder / "tensorboard"), purge_step=first_epoch)
        if self.history:
            self.write(self.history)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, history: list[dict[str, Any]]) -> None:
        """Writes the whole history to ``metrics.jsonl`` and its last epoch to TensorBoard."""
        lines = "".join(json.dumps(line) + "\n" for line in history)
        write_atomically(self.folder / "metrics.jsonl", lines)
        last = history[-1]
        for tag, value in _scalars(last):
            self._writer.add_scalar(tag, value, last["epoch"])
        self._writer.flush()


def _scalars(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested line as ``group/name``; lists are numbered."""
    for name, value in line.items():
        tag = f"{prefix}/{name}" if prefix else name
        if isinstance(value, dict):
            yield from _scalars(value, tag)
        elif isinstance(value, list):
            yield from _scalars({str(number): item for number, item in enumerate(value)}, tag)
        elif isinstance(value, int | float) and name != "epoch":
            yield tag, float(value)
