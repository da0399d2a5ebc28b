"""How long work reports its progress, independent of who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called after each unit of work."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``stage`` are finished."""
        ...


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A `Progress` that reports nothing."""
