"""The command line: arguments, messages, tables and progress. The work is done in the other packages.

This module imports little, so that `main` handles signals before the command itself is imported.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from dmask_mobile.cli.signals import end_with, ended_by_signals
from dmask_mobile.cli.streams import prepare_streams

__all__ = ["main"]


def main() -> NoReturn:
    """The console script ``dmask``; `dmask_mobile.cli.outcome` documents its exit statuses."""
    with ended_by_signals():
        prepare_streams()
        from dmask_mobile.cli.outcome import exit_status_of_command

        status = exit_status_of_command(sys.argv[1:])
    if getattr(sys.modules["__main__"], "main", None) is main:  # this process runs only dmask
        end_with(status)
    sys.exit(status)
