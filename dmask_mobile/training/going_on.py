"""Resumes from a checkpoint in all processes; only the main process moves files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmask_mobile.training.checkpoint import confirm_previous, go_on_from, take_previous
from dmask_mobile.training.machine import Machine


def go_on(path: Path, take: Callable[[dict[str, Any]], None], machine: Machine, previous: bool) -> None:
    """Passes the checkpoint in ``path``, if there is one, to ``take``; with ``previous`` the one before it.

    Raises:
        DmaskError: if it is refused, or ``previous`` is set and there is none before the last.
    """
    if previous:
        take_previous(path, take)
        machine.wait()
        if machine.is_main:
            confirm_previous(path)
    elif path.exists():
        go_on_from(path, take)
    machine.wait()
