"""The number of this process among several, set by ``torchrun`` and ``accelerate launch``; the cores it may use."""

from __future__ import annotations

import os
from typing import NamedTuple


class Share(NamedTuple):
    """The part of the work of one process: number ``rank`` of ``processes``."""

    rank: int = 0
    processes: int = 1


def is_main_process() -> bool:
    """Whether this process writes files and messages."""
    return os.environ.get("RANK", "0") == "0"


def all_processes() -> int:
    """The number of processes of this run on all machines."""
    return _count("WORLD_SIZE")


def local_processes() -> int:
    """The number of processes of this run on this machine, which share its memory and cores."""
    return _count("LOCAL_WORLD_SIZE")


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(variable: str) -> int:
    count = os.environ.get(variable, "1")
    return int(count) if count.isdecimal() and int(count) else 1
