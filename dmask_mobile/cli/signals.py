"""SIGTERM and Ctrl-C end every command with exit status 128 + number, at any moment and within seconds.

There are three phases. While Python imports the command, there is nothing to save: a signal ends the process at once.
While the command works, a signal raises `SignalError` in the main thread, so that every ``with`` and ``finally`` can
clean up. Work that must first be saved handles the signal itself (`dmask_mobile.interruption.stop_signals`). While the
process exits, a signal ends it at once again.

During an import a signal always ends the process at once, because modules of torch abort the process if an exception is
raised while they register themselves. A native library may never return to Python, or suppress the exception. So a
thread ends the process after `SECONDS_TO_STOP`; the interpreter's C handler sends every signal to this thread.

Ending at once is safe: files are written under temporary names and then renamed, and tables are written line by line.
Only a step inside `stop_signals` is finished first, because it has not been saved yet; a second signal ends it as well.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from dmask_mobile.interruption import SIGNALS, is_step_under_way

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SECONDS_TO_STOP = 4.0
SECONDS_OF_ONE_REQUEST = 0.5  # programs that pass on signals, such as timeout, may send the same signal twice
SECONDS_BETWEEN_LOOKS = 0.05
WATCH_NO_MORE, SEND_AGAIN = 0, 255  # bytes for the watching thread that are not numbers of signals


class SignalError(BaseException):
    """The command was told to end. Not an ``Exception``, so that code that handles failures does not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Command:
    """The signals that the running command received."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.0
        self.was_raised = False
        self.watcher: socket.socket | None = None  # sends signals to the watching thread


_command = _Command()


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """Ends the process without any clean-up, with exit status 128 + ``number``."""
    with suppress(OSError):
        os.write(2, f"\nstopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A context in which SIGTERM and SIGINT end the process at once, or within `SECONDS_TO_STOP` if code handles
    them."""
    before = {number: signal.signal(number, end_at_once) for number in SIGNALS}
    hook_before = sys.unraisablehook
    told, telling = socket.socketpair()
    with told, telling:
        telling.setblocking(False)
        watcher = threading.Thread(target=_watch, args=(told,), daemon=True)
        watcher.start()
        wakeup_before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
        _command.watcher = telling
        sys.unraisablehook = lambda found: _send_again(found, hook_before)
        try:
            yield
        finally:
            _command.watcher = None
            sys.unraisablehook = hook_before
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            telling.send(bytes([WATCH_NO_MORE]))
            watcher.join()


@contextmanager
def raised_signals() -> Iterator[None]:
    """A context in which SIGTERM and SIGINT raise `SignalError` in the main thread; a second one ends the process."""
    _command.received, _command.was_raised = None, False
    before = {number: signal.signal(number, _raise) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with(status: int) -> None:
    """Ends the process with ``status``; during the shutdown of Python, signals end it at once.

    The shutdown of native libraries would otherwise take another second, without handling signals.
    """
    atexit.register(_exit, status)
    atexit.register(_set_handlers, end_at_once)  # called first


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _set_handlers(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)


def check_signals() -> None:
    """Raises a suppressed signal again; commands call this regularly.

    Raises:
        SignalError: if it was raised before, and other code suppressed it.
    """
    if _command.received is not None and threading.current_thread() is threading.main_thread():
        raise SignalError(_command.received)


def _raise(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _command.received is None:
        _command.received, _command.received_at = number, now
    elif _command.was_raised:
        if now - _command.received_at > SECONDS_OF_ONE_REQUEST:
            end_at_once(number)
        return
    if _is_in_import(frame):
        end_at_once(number)
    _command.was_raised = True
    raise SignalError(_command.received)


def _is_in_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send_again(found: UnraisableHookArgs, show: Callable[[UnraisableHookArgs], object]) -> None:
    """Sends a signal again whose exception Python could not raise, for example in a finalizer."""
    if isinstance(found.exc_value, SignalError):
        _command.was_raised = False
        if _command.watcher is not None:
            _command.watcher.send(bytes([SEND_AGAIN]))
    else:
        show(found)


def _watch(told: socket.socket) -> None:
    """Ends the process if a signal has had no effect for too long."""
    number, deadline, is_second, is_ours = 0, float("inf"), False, False
    while True:
        try:
            byte = told.recv(1)[0]
        except TimeoutError:
            byte = None
        if byte == WATCH_NO_MORE:
            return
        if byte == SEND_AGAIN:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            is_ours = True
            os.kill(os.getpid(), _command.received or signal.SIGINT)
        elif byte in SIGNALS and is_ours:
            is_ours = False
        elif byte in SIGNALS:
            told.settimeout(SECONDS_BETWEEN_LOOKS)
            is_second = number != 0
            number, deadline = number or byte, time.monotonic() + SECONDS_TO_STOP
        if number and not is_second and is_step_under_way():
            deadline = time.monotonic() + SECONDS_TO_STOP
        if time.monotonic() > deadline:
            end_at_once(number)


def _in_child_process() -> None:
    """In a forked process, signals have their default effect, and the parent's watching thread does not see them."""
    if _command.watcher is not None:
        signal.set_wakeup_fd(-1)
        _set_handlers(signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child_process)
