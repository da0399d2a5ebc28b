"""Other processes in tests: run, and waited for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HANG_SECONDS = 1200.0
"""After this a test fails instead of hanging; no limit on speed, which differs by machine and by what runs beside."""

DMASK = str(Path(sys.executable).parent / "dmask")
"""The program under test."""


def run_command(
    command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``command`` to its end, whatever its exit status; gives both outputs as text."""
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)


def dmask(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command line."""
    return run_command([DMASK, *map(str, arguments)], cwd=cwd)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that other processes bring about."""
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {HANG_SECONDS:g} s: {what}")
        time.sleep(0.02)
