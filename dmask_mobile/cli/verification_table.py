"""A verification in 80 columns: first failures and what a device measured, then a summary of the other checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dmask_mobile.cli.console import cell
from dmask_mobile.quantities import TABLE_UNITS, quantity

if TYPE_CHECKING:
    from dmask_mobile.records.verification import Check, Verification

STYLES = {"failed": "bold red", "not verified": "yellow", "passed": "green", "not predicted": "dim"}
ORDER = list(STYLES)
NUMBERS = ("predicted", "measured", "allowed")


def verification_view(verification: Verification, title: str, *, full: bool = False) -> Iterator[Table | Text]:
    """The title, a table, the notes on its lines, and a line for each artifact with the number of its other checks.

    Args:
        verification: the checks.
        title: the name of what was verified.
        full: whether the table contains all checks.
    """
    ordered = sorted(verification.checks, key=lambda check: ORDER.index(check.verdict))
    shown = [check for check in ordered if full or is_worth_a_line(check)]
    folded = [check for check in verification.checks if check not in shown]
    yield cell(title, "bold")
    if shown:
        yield _table(verification, shown)
        yield from _notes(shown)
    yield from _counts(verification, folded)
    if folded:
        yield cell("every check: dmask verify --full", "dim")


def is_worth_a_line(check: Check) -> bool:
    """Whether the check gets its own line: it did not pass, or a device measured it (latency, memory, energy)."""
    wrong = check.verdict in ("failed", "not verified")
    return wrong or (check.quantity.startswith(tuple(TABLE_UNITS)) and check.measured is not None)


def _table(verification: Verification, checks: Sequence[Check]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for column in ("artifact", "check", *NUMBERS, "verdict"):
        table.add_column(column, justify="right" if column in NUMBERS else "left", overflow="fold")
    for check in checks:
        table.add_row(
            cell(check.artifact),
            cell(check.quantity),
            cell(quantity(check.predicted, check.unit)),
            cell(quantity(check.measured, check.unit)),
            cell(check.what_is_allowed),
            cell(verification.verdict_of(check), STYLES[check.verdict]),
        )
    return table


def _notes(checks: Sequence[Check]) -> Iterator[Text]:
    """Each note once, with the checks that have it."""
    by_note: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check.note:
            by_note.setdefault((check.artifact, check.note), []).append(check.quantity)
    for (artifact, note), quantities in by_note.items():
        yield cell(f"{artifact}, {', '.join(quantities)}: {note}", "dim")


def _counts(verification: Verification, checks: Sequence[Check]) -> Iterator[Text]:
    by_artifact: dict[str, list[str]] = {}
    for check in checks:
        by_artifact.setdefault(check.artifact, []).append(verification.verdict_of(check))
    width = max(map(len, by_artifact), default=0)
    for artifact, verdicts in by_artifact.items():
        counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(sorted(verdicts)).items())
        figures = [
            f"{check.quantity} {quantity(check.measured, check.unit)}"
            for check in checks
            if check.artifact == artifact and check.quantity.split(" ")[0] in ("accuracy", "size")
            if check.measured is not None
        ]
        rest = f"; {', '.join(figures)}" if figures else ""
        yield cell(f"{artifact:{width}}  {len(verdicts)} more: {counts}{rest}")
