"""`Verification`: predicted, measured and allowed, for every quantity of every artifact."""

from __future__ import annotations

from typing import ClassVar, Literal

from dmask_mobile.records.base import FileRecord, Record

Verdict = Literal["passed", "failed", "not verified"]


class Check(Record):
    """One line of a verification.

    ``predicted`` is what was promised, ``measured`` what was found (None: could not be looked at), ``allowed`` the
    largest difference, in words where it is not a plain number.
    """

    artifact: str
    quantity: str
    unit: str
    predicted: float | None
    measured: float | None
    allowed: str
    verdict: Verdict
    note: str = ""


class Verification(FileRecord):
    """All checks of a run. It passed only if there are checks and every one of them passed."""

    file_format: ClassVar[str] = "dmask-verification"

    child_digest: str
    created: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Nothing failed and nothing was left unlooked at."""
        return bool(self.checks) and all(check.verdict == "passed" for check in self.checks)


def judge(predicted: float | None, measured: float | None, tolerance: float) -> Verdict:
    """Passed when ``|measured - predicted| <= tolerance``; a missing side is 'not verified'."""
    if predicted is None or measured is None:
        return "not verified"
    return "passed" if abs(measured - predicted) <= tolerance else "failed"
