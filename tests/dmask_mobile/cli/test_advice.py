"""Every option that a message recommends exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dmask_mobile.cli.app import app

PACKAGE = Path(__file__).parents[3] / "dmask_mobile"
FILES = sorted(
    [*(p for part in ("api", "data", "search", "training", "supernet", "costs") for p in (PACKAGE / part).glob("*.py")),
     PACKAGE / "run.py"]
)  # fmt: skip


def options(command: Any) -> Iterator[str]:
    """The options of a command and of its subcommands."""
    for parameter in command.params:
        yield from parameter.opts
    for inner in getattr(command, "commands", {}).values():
        yield from options(inner)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_advised_options_exist(path: Path) -> None:
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    advised = {
        word for text in texts if isinstance(text, str) for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
    }
    assert advised <= set(options(typer.main.get_command(app)))
