"""Imports tables of ProxylessNAS, Once-for-All and mobile-vision.

There are such files with wrong content, so every entry is checked for negative or missing times, two entries for one
block, contradictory shapes and entries of another device. Problems are reported; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.block import Activation
from latency_tables.table.block_tables import once_for_all_entries, proxylessnas_entries
from latency_tables.table.foreign_entries import BadEntryError, Entries, Entry
from latency_tables.table.operator_tables import mobile_vision_entries
from latency_tables.table.rows import BlockAt, BlockRow

FORMATS: dict[str, Callable[[Path, Activation | None], Entries]] = {
    "proxylessnas": proxylessnas_entries,
    "once-for-all": once_for_all_entries,
    "mobile-vision": mobile_vision_entries,
}


class Imported(NamedTuple):
    """The imported rows, their precision, and the entries that were wrong or could not be used, with reasons."""

    rows: tuple[BlockRow, ...]
    findings: tuple[str, ...]
    precision: Precision


def read_foreign(path: Path, file_format: str, activation: Activation | None = None) -> Imported:
    """The blocks of another project's table.

    Args:
        path: the file.
        file_format: a key of `FORMATS`.
        activation: the activation of convolutions for which the file has none; without it they are reported.

    Raises:
        DmaskError: for an unknown format, a file that cannot be parsed, or a file without any usable entry.
    """
    if file_format not in FORMATS:
        raise DmaskError(f"no table format '{shown(file_format)}'", f"choose one of {', '.join(FORMATS)}")
    try:
        entries = list(FORMATS[file_format](path, activation))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DmaskError(f"cannot read '{path}' as {file_format}: {reason}", "give a file of that format") from error
    rows: dict[BlockAt, BlockRow] = {}
    findings = []
    first: Entry | None = None
    for name, make in entries:
        try:
            entry, row = _checked(make)
            first = first or entry
            _check_alike(first, entry)
            if entry.located in rows:
                raise BadEntryError("a second entry for this block")
            rows[entry.located] = row
        except BadEntryError as error:
            findings.append(f"{shown(name)}: {error}")
    if first is None:
        raise DmaskError(
            f"'{path}' contains no usable entry; the first problem: {findings[0] if findings else 'no entry at all'}",
            "check that it is a table of that format",
        )
    return Imported(tuple(rows.values()), tuple(findings), first.precision)


def _checked(make: Callable[[], Entry]) -> tuple[Entry, BlockRow]:
    """The checked entry and its row.

    Raises:
        BadEntryError: if something is wrong with it.
    """
    try:
        entry = make()
        ms = entry.ms
        if isinstance(ms, bool) or not isinstance(ms, int | float) or not math.isfinite(ms):
            raise BadEntryError(f"a latency must be a number, got {shown(repr(ms))}")
        if ms <= 0:
            raise BadEntryError(f"a latency must be positive, got {ms:g} ms")
        block, in_size = entry.located
        row = BlockRow(block=block, in_size=in_size, round=0, at=now(), wall_ms=(float(ms),), cpu_ms=())
    except ValidationError as error:
        raise BadEntryError(describe_validation_error(error)) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise BadEntryError(f"incomplete: {type(error).__name__} {shown(error)}") from error
    return entry, row


def _check_alike(first: Entry, entry: Entry) -> None:
    """Checks that an entry was measured on the same device and in the same precision as the first good one."""
    for name, ours, theirs in (
        ("device", first.device, entry.device),
        ("precision", first.precision, entry.precision),
    ):
        if ours != theirs:
            raise BadEntryError(
                f"its {name} is '{shown(theirs)}', but that of the first usable entry is '{shown(ours)}'"
            )
