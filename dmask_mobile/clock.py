"""The current time in the form that all our files use."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """The current time, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
