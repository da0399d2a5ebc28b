"""Output of commands: plain text for people, JSON for programs."""

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
PIPED_WIDTH = 140  # columns of piped output; a table needs more than the 80 that rich assumes


class PlainConsole(Console):
    """A console that does not interpret data: no markup, no emoji codes; control characters are escaped."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


console = PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
console.quiet = not is_main_process()  # of several processes, only the main one prints
messages = PlainConsole(stderr=True)
logger = logging.getLogger("dmask_mobile")


def cell(value: object, style: str = "") -> Text:
    """Data as a cell or title of a table; no console interprets it as markup."""
    return Text(printable(str(value)), style)


def tell(text: str, style: str = "") -> None:
    """Prints a message on standard error, on one line, with the number of the process if there are several."""
    text = text if is_main_process() else f"process {os.environ['RANK']}: {text}"
    messages.print(text, style=style, highlight=False, soft_wrap=True)


class _ToldLogs(logging.Handler):
    """Shows log records of the library as messages for people."""

    def emit(self, record: logging.LogRecord) -> None:
        name = record.levelname.lower()
        tell(f"{name}: {record.getMessage()}", style="yellow" if record.levelno >= logging.WARNING else "dim")


def show_logs(*, debug: bool, quiet: bool) -> None:
    """Shows the library's warnings as messages; with ``debug`` all log records, with ``quiet`` only errors."""
    logger.handlers = [_ToldLogs()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING)


def is_quiet() -> bool:
    """Whether progress and notes are switched off."""
    return logger.getEffectiveLevel() >= logging.ERROR


def fits(table: Table) -> bool:
    """Whether standard output is wide enough for all words of a table."""
    wide = console.options.update(width=MAX_WIDTH)
    return console.measure(table, options=wide).maximum <= console.width


def note(text: str) -> None:
    """Prints a less important message; nothing with ``--quiet``."""
    if not is_quiet():
        tell(text)


def print_json(content: Any) -> None:
    """Prints ``content`` as JSON in ASCII. Numbers that are not finite become null, because JSON has no such
    numbers."""
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
