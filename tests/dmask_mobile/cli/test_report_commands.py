from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.files import locked
from tests.dmask_mobile.report.factory import searched_run


def test_report_writes_a_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, page = searched_run(tmp_path / "run").path, tmp_path / "page.html"
    assert exit_status_of_command(["report", str(run), "-o", str(page), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"report": str(page), "size_bytes": page.stat().st_size, "runs": [str(run)]}


def test_bad_input_is_one_error_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status_of_command(["report", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_status_names_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = searched_run(tmp_path / "run").path
    assert exit_status_of_command(["status", str(run)]) == 0
    assert f"next: dmask train {run}" in capsys.readouterr().out
    assert exit_status_of_command(["status", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next"]["name"] == "train"


def test_status_report_and_plot_say_which_command_is_writing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = searched_run(tmp_path / "run").path
    with locked(run, "dmask train"):
        for words in (["status"], ["report", "-o", str(tmp_path / "a.html")], ["plot", "-o", str(tmp_path / "a.png")]):
            assert exit_status_of_command([words[0], str(run), *words[1:]]) == 0
            told = capsys.readouterr().err
            assert re.match(r"'dmask train' \(process \d+, since .*\) is writing to '.*run' now", told)
    assert exit_status_of_command(["status", str(run)]) == 0
    assert capsys.readouterr().err == ""
