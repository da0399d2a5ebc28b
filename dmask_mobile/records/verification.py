"""`Verification`: predicted, measured and allowed, for every quantity of every artifact."""

from __future__ import annotations

from typing import ClassVar, Literal

from dmask_mobile.records.accuracy import Split
from dmask_mobile.records.base import FileRecord, Record

Verdict = Literal["passed", "failed", "not verified", "not predicted"]
BUDGET_SUFFIX = " budget"
"""The end of the name of a budget's line, as in ``macs budget``."""
ROUNDING = 1e-9
"""Two sums of the same floats in a different order have a smaller relative difference; counts are exact."""
BUDGET_TOLERANCE = 0.05
"""How far a measured latency may exceed a budget that its prediction meets, unless the user sets another limit."""


class Check(Record):
    """One line of a verification.

    ``predicted`` is the predicted value, ``measured`` the measured one (None: could not be measured), ``allowed`` the
    largest allowed difference, in words if it is not a plain number. 'not verified': there is a prediction, but no
    measurement. 'not predicted': there is no prediction to compare with.
    """

    artifact: str
    quantity: str
    unit: str
    predicted: float | None
    measured: float | None
    allowed: str
    verdict: Verdict
    note: str = ""

    @property
    def what_is_allowed(self) -> str:
        """The largest allowed difference, with a sign if it is a number."""
        return f"± {self.allowed}" if self.allowed[:1].isdigit() else self.allowed


class Verification(FileRecord):
    """All checks of one child's artifacts.

    ``allow_unverified``: quantities whose lines the user allows to be 'not verified'. ``weights_sha256``: SHA-256 of
    the run's weights, None without a run. ``split``: the split whose images the accuracy lines use, None without
    labelled images.
    """

    file_format: ClassVar[str] = "dmask-verification"
    file_version: ClassVar[int] = 4  # 2 had 'not promised' for 'not predicted'; 3 had no weights and no split
    oldest_version: ClassVar[int | None] = 3

    child_digest: str
    created: str
    checks: tuple[Check, ...]
    allow_unverified: tuple[str, ...] = ()
    weights_sha256: str | None = None
    split: Split | None = None

    @property
    def passed(self) -> bool:
        """Whether at least one line passed, none failed, and the user allowed every 'not verified' line."""
        verdicts = [check.verdict for check in self.checks if not self.is_excused(check)]
        return "passed" in verdicts and set(verdicts) <= {"passed", "not predicted"}

    def is_excused(self, check: Check) -> bool:
        """Whether the line is 'not verified' and the user allowed that.

        ``latency`` allows all latencies and latency budgets, ``latency@pixel`` only those of one table, and the full
        name of a line only that line.
        """
        named = check.quantity.removesuffix(BUDGET_SUFFIX)
        word = check.quantity.partition(" ")[0]
        names = {check.quantity, named, word, word.partition("@")[0]}
        return check.verdict == "not verified" and not names.isdisjoint(self.allow_unverified)

    def verdict_of(self, check: Check) -> str:
        """The verdict in words; it says if the user allowed a 'not verified' line."""
        return f"{check.verdict}, allowed" if self.is_excused(check) else check.verdict


def line_of(
    artifact: str,
    quantity: str,
    unit: str,
    predicted: float | None,
    measured: float | None,
    allowed: str,
    verdict: Verdict,
    note: str = "",
) -> Check:
    """The `Check` with these fields, by position."""
    return Check(
        artifact=artifact,
        quantity=quantity,
        unit=unit,
        predicted=predicted,
        measured=measured,
        allowed=allowed,
        verdict=verdict,
        note=note,
    )


def judge(predicted: float | None, measured: float | None, tolerance: float) -> Verdict:
    """Passed when ``|measured - predicted| <= tolerance``; 'not verified' if one of them is missing."""
    if predicted is None or measured is None:
        return "not verified"
    return "passed" if abs(measured - predicted) <= tolerance else "failed"
