"""The output of ``--help`` in 80 columns, made from the docstring and the parameters of a command.

Typer's own page has a column for types and two for the names of an option. In 80 columns too little space is left, and
typer cuts off long options and words.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from dmask_mobile.cli.console import PlainConsole

EXAMPLE = re.compile(r"(?P<what>[^:]+): (?P<command>(dmask|torchrun) .+)")
MAX_NAMES = 30  # columns for an option's names and the kind of its value
KIND = re.compile(r" <(?:list\[)?(.+?)(?: range)?\]?>$")  # as typer writes it: <int range>, <list[Path]>, <a|b>


class CommandWithHelp(TyperCommand):
    """A command whose help shows each option with its description beside it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        console = PlainConsole()
        for part in self._page(ctx):
            console.print(part, highlight=False)

    def _page(self, ctx: Any) -> Iterator[Padding | Panel]:
        usage = Text.assemble(("Usage: ", "bold"), f"{ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}")
        yield Padding(usage, (1, 1, 1, 1))
        yield Padding(Text.from_markup(self.help or ""), (0, 1, 1, 1))
        panels: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(parameter)
        for title, parameters in panels.items():
            rows = [row for parameter in parameters if (row := _row(parameter, ctx)) is not None]
            yield _panel(title, rows)


def _row(parameter: Any, ctx: Any) -> tuple[Text, Text] | None:
    """An option's names and the kind of its value; its description and default. None for a hidden option."""
    record = parameter.get_help_record(ctx)
    if record is None:
        return None
    names, does = record
    kind = KIND.search(names)
    values = kind[1].lower() if kind else ""
    names = KIND.sub("", names)
    if "|" in values:
        does = f"{does}  [one of: {values.replace('|', ', ')}]"
        values = "name"
    if values and parameter.param_type_name == "option":
        names = f"{names} <{values}>"
    text = Text(" ".join(does.split()))
    text.highlight_regex(r"\[(default|one of|required|x)[^\]]*\]$|\[(default|required)[^\]]*\](?= \[)", "dim")
    return Text(names, "bold cyan"), text


def _panel(title: str, rows: list[tuple[Text, Text]]) -> Panel:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    width = min(MAX_NAMES, max((len(names) for names, _ in rows), default=0))
    table.add_column(width=width, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return Panel(table, title=title, title_align="left", border_style="dim")


def show_docstrings(app: typer.Typer) -> None:
    """Uses the docstring of each command of ``app`` as its help."""
    for command in app.registered_commands:
        command.cls = CommandWithHelp
        if command.callback is not None:
            command.help = help_of(command.callback)


def help_of(function: Callable[..., object]) -> str:
    """A docstring in rich's markup: one line for each paragraph, escaped brackets, examples in bold."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(_paragraph(" ".join(text.split())) for text in paragraphs)


def examples_of(function: Callable[..., object]) -> list[str]:
    """The command lines of the examples in a docstring."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    found = (EXAMPLE.fullmatch(" ".join(text.split())) for text in paragraphs)
    return [example["command"] for example in found if example]


def _paragraph(text: str) -> str:
    example = EXAMPLE.fullmatch(text)
    return f"{escape(example['what'])}: [bold]{escape(example['command'])}[/bold]" if example else escape(text)
