"""How every benchmark ends: its result in a file with versions and date, and as JSON where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dmask_mobile.clock import now
from dmask_mobile.run import installed_versions

RESULTS = Path(__file__).parent / "results"


def keep(name: str, result: dict[str, Any], as_json: bool, folder: Path = RESULTS) -> None:
    """Writes ``results/NAME.json``; prints it as well with ``as_json``."""
    text = json.dumps({**result, "created": now(), "versions": installed_versions()}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
    if as_json:
        print(text)
