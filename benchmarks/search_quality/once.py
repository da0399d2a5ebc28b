"""Jobs that are done once: each keeps its result under a name that depends on everything that decides it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmask_mobile.records.base import write_atomically

Result = dict[str, Any]


class CpuClock:
    """CPU seconds of a job over all its interrupted runs, kept beside its checkpoint.

    A `Progress`: the time is kept whenever a stage that ends with a checkpoint is told.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before: float = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
        self.start = cpu_seconds()

    def seconds(self) -> float:
        """So far, with those of child processes that have ended."""
        return self.before + cpu_seconds() - self.start

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage != "epoch":  # a step within one
            write_atomically(self.path, json.dumps({"seconds": self.seconds()}))


def cpu_seconds() -> float:
    """Of this process and of those of its child processes that have ended."""
    return sum(os.times()[:4])


def key_of(identity: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for what a job depends on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def folder_of(work: Path, kind: str, identity: Mapping[str, Any]) -> Path:
    """Where the job of this kind keeps its files."""
    return work / "jobs" / f"{kind}-{key_of(identity)}"


def once(work: Path, kind: str, identity: Mapping[str, Any], job: Callable[[Path, CpuClock], Result]) -> Result:
    """The result of a job with its ``cpu_seconds``: from its folder where it was done before.

    Args:
        work: where jobs keep their files.
        kind: of the job.
        identity: everything that decides the result, as JSON.
        job: is given its folder and its clock.
    """
    folder = folder_of(work, kind, identity)
    done = folder / "result.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "identity.json", json.dumps(identity, indent=1))
        clock = CpuClock(folder / "cpu.json")
        content = job(folder, clock)
        write_atomically(done, json.dumps({**content, "cpu_seconds": clock.seconds()}))
    result: Result = json.loads(done.read_text())
    return result
