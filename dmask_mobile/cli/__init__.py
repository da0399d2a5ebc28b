"""The command line: words, tables and progress; the work is done elsewhere.

Imports little, so that a signal finds `main` in charge before the command itself is imported.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from dmask_mobile.cli.signals import end_with, ended_by_signals
from dmask_mobile.cli.streams import prepare_streams

__all__ = ["main"]


def main() -> NoReturn:
    """The console script ``dmask``; `dmask_mobile.cli.outcome` says what its exit statuses mean."""
    with ended_by_signals():
        prepare_streams()
        from dmask_mobile.cli.outcome import exit_status_of_command

        status = exit_status_of_command(sys.argv[1:])
    if getattr(sys.modules["__main__"], "main", None) is main:  # the process is ours
        end_with(status)
    sys.exit(status)
