"""Checks what a command prints with ``--json`` by the schema in the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def schema_of(command: str) -> dict[str, Any]:
    """The schema of a command, by its words."""
    return json.loads((FOLDER / f"{command.replace(' ', '-')}.json").read_text())


def described(command: str, printed: str) -> Any:
    """What a command printed, which must be as its schema says."""
    content = json.loads(printed)
    jsonschema.Draft202012Validator(schema_of(command)).validate(content)
    return content
