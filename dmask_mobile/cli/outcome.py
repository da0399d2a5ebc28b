"""How a command ends: its exit status, and one message if something went wrong.

0: done; 1: a verification failed; 2: bad input or usage; 3: a fault of dmask-mobile; 128 + number: ended by a signal;
141: the reader of standard output has gone, as for a program that SIGPIPE ended.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

import dmask_mobile
from dmask_mobile.cli.app import app
from dmask_mobile.cli.console import tell
from dmask_mobile.cli.signals import SignalError, check_signals, raised_signals
from dmask_mobile.cli.streams import OutputError, discard_output
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.interruption import StoppedError
from dmask_mobile.ranks import is_main_process

COMPLETION = "_DMASK_COMPLETE"
BAD_INPUT, OUR_FAULT, SIGNALLED, NOBODY_READS = 2, 3, 128, 141
KEPT = "everything measured or trained so far is kept"
FULL = {errno.ENOSPC, errno.EFBIG, *filter(None, [getattr(errno, "EDQUOT", None)])}
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def exit_status_of_command(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status; an error is shown in one message."""
    status = OUR_FAULT
    try:
        with raised_signals():
            try:
                status = _run(arguments)
                sys.stdout.flush()
                check_signals()
            except (Exception, SystemExit) as error:  # a library may call sys.exit
                check_signals()  # inside a library, a signal may appear as an error
                status = _show_error(error)
    except SignalError as stopped:
        tell(f"stopped by {stopped}; {KEPT}", style="yellow")
        status = SIGNALLED + stopped.number
    except KeyboardInterrupt:  # from a library with its own signal handler
        status = SIGNALLED + signal.SIGINT
    except OutputError as error:
        discard_output()
        if not error.is_closed:
            tell(f"error: {error}", style="red")
        status = NOBODY_READS if error.is_closed else BAD_INPUT
    return status


def _run(arguments: Sequence[str]) -> int:
    """Runs a command as typer does, but passes on every exception: typer ends with 1 for any broken pipe."""
    command = typer.main.get_command(app)
    try:
        try:
            if COMPLETION in os.environ:  # a shell requests completions
                command.main(list(arguments), "dmask", COMPLETION, standalone_mode=False)
            context = command.make_context("dmask", list(arguments))
        except SystemExit as ended:  # completion, and the options that install it, end this way
            return BAD_INPUT if ended.code else 0
        except typer.Exit as ended:  # --help ends this way, and completion for a shell that typer does not support
            return BAD_INPUT if ended.exit_code else 0
        with context:
            context.command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def _show_error(error: Exception | SystemExit) -> int:
    """Shows one message and returns the exit status."""
    if os.environ.get("DMASK_DEBUG"):
        for line in "".join(traceback.format_exception(error)).splitlines():
            tell(line)
    if isinstance(error, StoppedError):
        if is_main_process():
            tell(str(error), style="yellow")
        return SIGNALLED + error.signal_number
    if hasattr(error, "show") and hasattr(
        error, "exit_code"
    ):  # a usage error; typer's versions have no common class for it
        error.show()
        return int(error.exit_code)
    reason = _reason(error)
    if reason is None:
        tell(
            f"this is a fault of dmask-mobile {dmask_mobile.__version__}: {type(error).__name__}: {shown(error)};"
            " to report it, run the command again as 'dmask --debug ...' and send its output, with the output of"
            " 'dmask doctor'",
            style="red",
        )
        return OUR_FAULT
    tell(f"error: {reason}", style="red")
    return BAD_INPUT


def _reason(error: Exception | SystemExit) -> str | None:
    """The message to the user about bad input or a broken environment; None for a fault of dmask-mobile."""
    from pydantic import ValidationError

    from dmask_mobile.records.base import describe_validation_error

    if isinstance(error, DmaskError):
        return str(error)
    if isinstance(error, ValidationError):
        return f"{error.title}: {describe_validation_error(error)}"
    if isinstance(error, OSError):
        return _reason_of_system(error)
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return (
            f"there is not enough memory: {shown(error) or 'MemoryError'}; use a smaller --batch-size, smaller images"
            f" or a smaller space, or end other programs; {KEPT}"
        )
    return None


def _reason_of_system(error: OSError) -> str:
    """What the operating system refused, for which path, and what to do."""
    where = f"'{error.filename}': " if error.filename is not None else ""
    reason = f"{where}{error.strerror or error}"
    if error.errno in FULL:
        return f"{reason}; free some space, or write to another disk ({KEPT})"
    if variable := _variable_of_folder(error.filename):
        return f"{reason}; set {variable} to a writable folder ({KEPT})"
    if error.errno in REFUSED:
        return f"{reason}; check the permissions ({KEPT})"
    return f"{reason} ({KEPT})"


def _variable_of_folder(filename: object) -> str | None:
    """The environment variable that sets the folder of the user's state or cache, if ``filename`` is in one."""
    import platformdirs

    if not isinstance(filename, str | os.PathLike):
        return None
    path = Path(filename)
    folders = {
        "XDG_CACHE_HOME": platformdirs.user_cache_path("dmask-mobile"),
        "XDG_STATE_HOME": platformdirs.user_state_path("dmask-mobile"),
    }
    for variable, folder in folders.items():
        if path.is_relative_to(folder) or folder.is_relative_to(path):
            return variable
    return None
