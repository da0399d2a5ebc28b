"""The measured tables that are included in the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "tables"


def shipped_tables() -> dict[str, Path]:
    """The tables by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.jsonl"))}


def table_path(name_or_path: Path) -> Path:
    """The path itself if it exists, otherwise the path of the shipped table with this name."""
    return name_or_path if name_or_path.exists() else shipped_tables().get(str(name_or_path), name_or_path)
