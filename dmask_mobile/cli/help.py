"""What ``--help`` shows of a command: its docstring, written for readers of the code, as rich text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import typer
from rich.markup import escape

EXAMPLE = re.compile(r"(?P<what>[^:]+): (?P<command>(dmask|torchrun) .+)")


def show_docstrings(app: typer.Typer) -> None:
    """Makes the docstring of each command of ``app`` its help."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.help = help_of(command.callback)


def help_of(function: Callable[..., object]) -> str:
    """A docstring in rich's markup: one line for each paragraph, brackets as they are, examples in bold."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(_paragraph(" ".join(text.split())) for text in paragraphs)


def examples_of(function: Callable[..., object]) -> list[str]:
    """The command lines that a docstring gives as examples."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    found = (EXAMPLE.fullmatch(" ".join(text.split())) for text in paragraphs)
    return [example["command"] for example in found if example]


def _paragraph(text: str) -> str:
    example = EXAMPLE.fullmatch(text)
    return f"{escape(example['what'])}: [bold]{escape(example['command'])}[/bold]" if example else escape(text)
