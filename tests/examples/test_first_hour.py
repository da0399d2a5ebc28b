"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dmask_mobile as dm

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_hour.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)
    assert len(cells) > 5


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other work does to latencies: the numerics, the counts and the size must have passed."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, source in enumerate(code_cells()):
        exec(compile(source, f"cell {number}", "exec"), names)
    run = dm.Run("first_hour/run")
    assert run.accuracy is not None
    assert run.verification is not None
    wrong = [check for check in run.verification.checks if check.verdict not in ("passed", "not predicted")]
    assert {check.quantity.split(" ")[0] for check in wrong} <= {"latency"}
    assert (tmp_path / "first_hour" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "first_hour" / "search.svg").exists()
