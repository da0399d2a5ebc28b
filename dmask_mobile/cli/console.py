"""What commands print: text as it is, for people; JSON for machines."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmask_mobile.errors import printable
from dmask_mobile.ranks import is_main_process

MAX_WIDTH = 10_000
PIPED_WIDTH = 140  # piped output has no width of its own; a table needs more than the 80 columns that rich assumes then


class PlainConsole(Console):
    """A console that shows data as it is: no markup, no emoji codes, control characters escaped."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


console = PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
console.quiet = not is_main_process()  # of several processes one talks
messages = PlainConsole(stderr=True)
logger = logging.getLogger("dmask_mobile")


def cell(value: object, style: str = "") -> Text:
    """Data as a cell or title of a table, shown as it is by any console."""
    return Text(printable(str(value)), style)


def tell(text: str, style: str = "") -> None:
    """Prints a message for people on standard error, however long, on one line; says which of several processes."""
    text = text if is_main_process() else f"process {os.environ['RANK']}: {text}"
    messages.print(text, style=style, highlight=False, soft_wrap=True)


class _ToldLogs(logging.Handler):
    """Shows what the library logs as messages for people."""

    def emit(self, record: logging.LogRecord) -> None:
        name = record.levelname.lower()
        tell(f"{name}: {record.getMessage()}", style="yellow" if record.levelno >= logging.WARNING else "dim")


def show_logs(*, debug: bool, quiet: bool) -> None:
    """From now on the library's warnings are messages; with ``debug`` all that it logs, with ``quiet`` errors alone."""
    logger.handlers = [_ToldLogs()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)


def is_quiet() -> bool:
    """Whether nobody wants to see progress and notes."""
    return logger.getEffectiveLevel() >= logging.ERROR


def fits(table: Table) -> bool:
    """Whether standard output has the columns that a table needs for all its words."""
    wide = console.options.update(width=MAX_WIDTH)
    return console.measure(table, options=wide).maximum <= console.width


def note(text: str) -> None:
    """Prints a message that a person may do without; nothing with ``--quiet``."""
    if not is_quiet():
        tell(text)


def print_json(content: Any) -> None:
    """Prints ``content`` for machines: ASCII alone; a number that is not finite, which JSON does not know, is null."""
    if not is_main_process():
        return
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    typer.echo(text.replace("\x7f", "\\u007f"))


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
