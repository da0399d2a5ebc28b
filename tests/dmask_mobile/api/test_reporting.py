from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dmask_mobile.api.reporting import write_report_of_run
from tests.dmask_mobile.report.factory import searched_run


def test_a_report_that_cannot_be_written_is_told_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is written at the end of a verification, whose result must not be lost by an error."""
    monkeypatch.setattr(logging.getLogger("dmask_mobile"), "propagate", True)  # a command line has taken its messages
    folder, told = searched_run(tmp_path / "run"), list[str]()
    write_report_of_run(folder, lambda stage, done, total, note="": told.append(note))
    assert told == [str(folder.report_path)]
    folder.report_path.write_text("a page of the user's own")
    write_report_of_run(folder, lambda stage, done, total, note="": told.append(note))
    assert told == [str(folder.report_path)]
    assert caplog.records[-1].getMessage().startswith("no report: ")
    assert "is not a report of dmask-mobile" in caplog.records[-1].getMessage()
    assert folder.report_path.read_text() == "a page of the user's own"
