"""Progress on stderr: a bar with the remaining time on a terminal, otherwise a line from time to time."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dmask_mobile.cli.console import is_quiet, messages
from dmask_mobile.cli.signals import check_signals
from dmask_mobile.errors import printable
from dmask_mobile.ranks import is_main_process

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_SPEED = (
    24 * 3600.0
)  # used to estimate the remaining time; rich's default of 30 s is shorter than two epochs of a long search


class ShownProgress:
    """A `dmask_mobile.progress.Progress` that shows the progress; use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._console = messages
        self._is_shown = is_main_process() and not is_quiet()  # of several processes, only the main one prints
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            speed_estimate_period=SECONDS_OF_SPEED,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}  # when each stage was first reported, and what was done then
        self._done: dict[str, int] = {}  # the last report of each stage
        self._last_line = 0.0

    def __enter__(self) -> ShownProgress:
        if self._console.is_terminal and self._is_shown:
            self._bars.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars.live.is_started:  # otherwise rich writes an empty line
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Shows ``done`` of ``total``.

        Raises:
            SignalError: after a signal whose exception a library has suppressed.
        """
        check_signals()
        if not self._is_shown:
            return
        note = printable(note)
        begins = done < self._done.get(stage, done + 1)  # the stage begins for the first time, or again
        self._done[stage] = done
        if self._console.is_terminal:
            self._show_bar(stage, begins, done, total, note)
            return
        now = time.monotonic()
        if begins:
            self._started[stage] = (now, done)
        started, done_before = self._started[stage]
        if done < total and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        left = (now - started) * (total - done) / max(1, done - done_before)
        timing = f", about {left:.0f} s left" if done_before < done < total else ""
        self._console.print(f"{stage} {done}/{total}{timing} {note}".rstrip(), highlight=False)

    def _show_bar(self, stage: str, begins: bool, done: int, total: int, note: str) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, note="")
        elif begins:
            self._bars.reset(self._tasks[stage])
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)
