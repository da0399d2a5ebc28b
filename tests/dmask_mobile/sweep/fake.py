"""Jobs whose steps are small scripts instead of searches and trainings."""

from __future__ import annotations

import sys
from pathlib import Path

from dmask_mobile.sweep.job import Job, Step, is_searched

FINISH = "(folder / 'search').mkdir(exist_ok=True); (folder / 'search' / 'result.json').touch()"
"""Makes the step count as done."""
COUNT = "(folder / 'starts').open('a').write('x')"
UNTIL_STOPPED = """
def keep(number, frame):
    (folder / 'kept').touch()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, keep)

def stop_at_the_end_of_stdin():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop_at_the_end_of_stdin, daemon=True).start()
(folder / 'started').touch()
signal.pause()
"""
"""Runs until a signal or, as `dmask_command`, until the process that started it has ended."""


def fake_job(folder: Path, script: str) -> Job:
    """A job of one step, which runs ``script`` with its run folder as ``folder``."""
    start = f"import os, pathlib, signal, sys, threading, time; folder = pathlib.Path({str(folder)!r})\n"
    return Job(folder.name, folder, (Step("search", (sys.executable, "-c", start + script), is_searched),))


class Outcomes(dict[str, str | None]):
    """Why each job failed, by name; None for those that are done."""

    def __call__(self, job: Job, reason: str | None) -> None:
        self[job.name] = reason
