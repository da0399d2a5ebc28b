"""The current time, as every file of ours writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The current time, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
