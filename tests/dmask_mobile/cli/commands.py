"""All commands of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from dmask_mobile.cli.app import app

ROOT = typer.main.get_command(app)


def commands(group: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    for name, command in group.commands.items():
        yield from commands(command, (*words, name)) if hasattr(command, "commands") else [(*words, name)]


def command_named(words: tuple[str, ...]) -> Any:
    found: Any = ROOT
    for word in words:
        found = found.commands[word]
    return found
