"""Handles SIGTERM and Ctrl-C at the next safe place instead of in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """Long work was asked to stop, and has saved its results.

    Not a `DmaskError`: code that continues after such an error must still stop when it is asked to.
    """

    def __init__(self, signal_number: int, what: str) -> None:
        super().__init__(
            f"{what} stopped by {signal.Signals(signal_number).name}; everything up to the last step is saved;"
            " start the same command again to continue"
        )
        self.signal_number = signal_number


class _Noted:
    """The signal that was received while one `stop_signals` was open."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.was_told = False

    def tell(self) -> int | None:
        self.was_told = self.number is not None
        return self.number


_noted: list[_Noted] = []  # one entry for each open `stop_signals`, the innermost last


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """A context in which the first SIGTERM or SIGINT is only noted; it gives a function that returns that signal, if
    any.

    A second signal has its effect at once. A signal that was noted but not asked for before the block ended has its
    effect after the block. Outside the main thread, Python allows no handlers, so nothing is noted.
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
    """Whether a `stop_signals` is open, whose step is finished and saved before a signal has its effect."""
    return bool(_noted)


def check_stopped(what: str) -> None:
    """Stops code inside a `stop_signals`, at any depth and in any thread.

    Raises:
        StoppedError: if an open `stop_signals` has noted a signal.
    """
    for noted in _noted:
        if number := noted.tell():
            raise StoppedError(number, what)
