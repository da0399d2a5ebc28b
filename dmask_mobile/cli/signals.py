"""SIGTERM and Ctrl-C end every command with exit status 128 + number, at any moment and within seconds.

Three states follow each other. While Python imports the command, nothing is worth keeping: a signal ends the process at
once. While the command works, a signal raises `SignalError` in the main thread, so that every ``with`` and ``finally``
undoes what it did; work that must reach a safe place first takes the signal itself
(`dmask_mobile.interruption.stop_signals`). While the process ends, a signal ends it at once again.

Inside an import a signal always ends the process at once: modules of torch abort it when an exception meets them while
they register themselves. A native library may never return to Python, or swallow the exception. So a thread ends the
process after `SECONDS_TO_STOP`; the interpreter's C handler writes every signal to it.

Ending at once is safe: files are written beside their place and then renamed, tables line by line. Only the step of a
`stop_signals` is waited for, because it has not been kept yet; a second signal ends that as well.
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
SECONDS_OF_ONE_REQUEST = 0.5  # programs that pass signals on, timeout for one, may send the same one twice
SECONDS_BETWEEN_LOOKS = 0.05
WATCH_NO_MORE, SEND_AGAIN = 0, 255  # bytes to the watching thread that are no signal's number


class SignalError(BaseException):
    """The command was told to end. No ``Exception``: code that can go on after a failure must not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Command:
    """What the command under way was told."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.0
        self.was_raised = False
        self.watcher: socket.socket | None = None  # what the watching thread is told through


_command = _Command()


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """Ends the process without any clean-up; exit status 128 + ``number``."""
    with suppress(OSError):
        os.write(2, f"\nstopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT end the process: at once, or within `SECONDS_TO_STOP` where other code takes them."""
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
    """Inside, SIGTERM and SIGINT raise `SignalError` in the main thread; a second one ends the process at once."""
    _command.received, _command.was_raised = None, False
    before = {number: signal.signal(number, _raise) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with(status: int) -> None:
    """Lets signals end the process for as long as Python ends, and then ends it with ``status``.

    Python's own end would go on for a second with native libraries, and take no signal any more.
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
    """For places that every command passes now and then.

    Raises:
        SignalError: when one was raised before, and code between there and here swallowed it.
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
    """For exceptions that Python cannot raise, for example in a finalizer: a signal comes back a moment later."""
    if isinstance(found.exc_value, SignalError):
        _command.was_raised = False
        if _command.watcher is not None:
            _command.watcher.send(bytes([SEND_AGAIN]))
    else:
        show(found)


def _watch(told: socket.socket) -> None:
    """Ends the process once a signal has had no effect for too long."""
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
    """A forked process is none of ours: signals end it, and the parent's watching thread hears nothing of them."""
    if _command.watcher is not None:
        signal.set_wakeup_fd(-1)
        _set_handlers(signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child_process)
