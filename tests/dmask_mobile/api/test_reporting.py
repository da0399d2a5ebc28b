from __future__ import annotations

from pathlib import Path

from dmask_mobile.api.reporting import write_report_of_run
from tests.dmask_mobile.report.factory import searched_run


def test_a_report_that_cannot_be_written_is_told_and_costs_nothing(tmp_path: Path) -> None:
    """As at the end of a verification, which must not be lost by it."""
    folder, told = searched_run(tmp_path / "run"), list[str]()
    write_report_of_run(folder, lambda stage, done, total, note="": told.append(note))
    assert told == [str(folder.report_path)]
    folder.report_path.write_text("a page of the user's own")
    write_report_of_run(folder, lambda stage, done, total, note="": told.append(note))
    assert told[1].startswith("not written: ")
    assert "is no report of dmask-mobile" in told[1]
    assert folder.report_path.read_text() == "a page of the user's own"
