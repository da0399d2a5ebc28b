"""A verification in 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.cli.console import PlainConsole
from dmask_mobile.cli.verification_table import verification_view
from dmask_mobile.records.verification import Verification
from tests.dmask_mobile.report.factory import checks_of, whole_run


@pytest.fixture
def verification(tmp_path: Path) -> Verification:
    return Verification.read(whole_run(tmp_path / "run").verification_path)


def shown(verification: Verification, *, full: bool) -> list[str]:
    console = PlainConsole(width=80)
    with console.capture() as captured:
        for part in verification_view(verification, "child x in runs/a", full=full):
            console.print(part, highlight=False)
    return captured.get().splitlines()


@pytest.mark.parametrize("full", [False, True])
def test_it_fits_80_columns_and_what_failed_comes_first(verification: Verification, full: bool) -> None:
    lines = shown(verification, full=full)
    assert max(map(len, lines)) <= 80
    assert lines[0] == "child x in runs/a"
    assert lines[2].split()[:4] == ["coreml", "int8", "max", "error"]
    assert lines[2].split()[-1] == "failed"
    assert lines[3].split()[-2:] == ["not", "verified"]


def test_the_rest_is_a_line_an_artifact(verification: Verification) -> None:
    """Of the onnx lines, 2 latencies are shown; 4 others passed. Of the coreml lines 1 was not predicted."""
    lines = shown(verification, full=False)
    assert "onnx         4 more: 4 passed; accuracy (test) 87.50%, size 120.6 KiB" in lines
    assert "coreml int8  1 more: 1 not predicted" in lines
    assert lines[-1] == "every check: dmask verify --full"
    assert not [line for line in lines if line.startswith("onnx") and " SNR" in line]


def test_full_shows_every_check(verification: Verification, tmp_path: Path) -> None:
    text = " ".join(shown(verification, full=True))
    assert len(checks_of(whole_run(tmp_path / "other").child())) == len(verification.checks)
    for check in verification.checks:
        assert check.quantity.split()[0] in text
    assert "more:" not in text
    assert "every check" not in text


def test_a_note_stands_once_with_its_checks(verification: Verification) -> None:
    checks = tuple(check.model_copy(update={"note": "hot"}) for check in verification.checks)
    lines = shown(verification.model_copy(update={"checks": checks}), full=False)
    assert "onnx, latency, latency budget: hot" in lines
