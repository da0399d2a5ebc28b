"""Writes the result of a benchmark to a file with versions and date, and prints it as JSON if requested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dmask_mobile.clock import now
from dmask_mobile.run import installed_versions

RESULTS = Path(__file__).parent / "results"


def without_folders(data: str) -> str:
    """What names a data source, with the last part of its path alone: results name no folder of a machine."""
    kind, _, path = data.partition(":")
    return f"{kind}:{Path(path).name}" if path else kind


def keep(name: str, result: dict[str, Any], as_json: bool, folder: Path = RESULTS) -> None:
    """Writes ``results/NAME.json``; with ``as_json`` it is also printed."""
    text = json.dumps({**result, "created": now(), "versions": installed_versions()}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
    if as_json:
        print(text)
