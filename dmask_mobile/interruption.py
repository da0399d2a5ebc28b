"""SIGTERM and Ctrl-C, taken at the next safe place instead of in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_noted: list[list[int]] = []  # by each `stop_signals` that is open, the innermost last


class StoppedError(Exception):
    """Long work was asked to stop, and has kept what it did.

    No `DmaskError`: who can go on without something that failed must still stop when told to.
    """

    def __init__(self, signal_number: int, what: str) -> None:
        super().__init__(
            f"{what} stopped by {signal.Signals(signal_number).name}; everything up to the last step is kept;"
            " start the same command again to go on"
        )
        self.signal_number = signal_number


@contextmanager
def stop_signals() -> Iterator[Callable[[], int | None]]:
    """Inside, the first SIGTERM or SIGINT is only noted; the function that comes back says which one, if any.

    A second one acts at once. Outside the main thread, where Python allows no handlers, nothing is ever noted.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        received.append(number)

    for number in SIGNALS:
        signal.signal(number, note)
    _noted.append(received)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])
        _noted.pop()


def check_stopped(what: str) -> None:
    """For code below a `stop_signals`, however deep and in whatever thread.

    Raises:
        StoppedError: when one of those that are open has noted a signal.
    """
    for received in _noted:
        if received:
            raise StoppedError(received[0], what)
