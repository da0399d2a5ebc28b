"""SIGTERM and Ctrl-C, taken at the next safe place instead of in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """Long work was asked to stop, and has kept what it did.

    No `DmaskError`: who can go on without something that failed must still stop when told to.
    """

    def __init__(self, signal_number: int, what: str) -> None:
        super().__init__(
            f"{what} stopped by {signal.Signals(signal_number).name}; everything up to the last step is kept;"
            " start the same command again to continue"
        )
        self.signal_number = signal_number


class _Noted:
    """The signal that came while one `stop_signals` was open."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.was_told = False

    def tell(self) -> int | None:
        self.was_told = self.number is not None
        return self.number


_noted: list[_Noted] = []  # by each `stop_signals` that is open, the innermost last


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Inside, the first SIGTERM or SIGINT is only noted; the function that comes back says which one, if any.

    A second one acts at once. One that nobody asked about before the block ended, because the work was done, acts when
    the block has ended. Outside the main thread, where Python allows no handlers, nothing is ever noted.
    """
    noted = _Noted()
    if threading.current_thread() is not threading.main_thread():
        yield noted.tell
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        if noted.number is not None:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        noted.number = number

    for number in SIGNALS:
        signal.signal(number, note)
    _noted.append(noted)
    try:
        yield noted.tell
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
        _noted.pop()
    if noted.number is not None and not noted.was_told:
        signal.raise_signal(noted.number)


def is_step_under_way() -> bool:
    """Whether a `stop_signals` is open, whose step is finished and kept before a signal acts."""
    return bool(_noted)


def check_stopped(what: str) -> None:
    """For code below a `stop_signals`, however deep and in whatever thread.

    Raises:
        StoppedError: when one of those that are open has noted a signal.
    """
    for noted in _noted:
        if number := noted.tell():
            raise StoppedError(number, what)
