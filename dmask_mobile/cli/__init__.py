"""The command line: words, tables and progress; the work is done elsewhere."""

from dmask_mobile.cli.app import main

__all__ = ["main"]
