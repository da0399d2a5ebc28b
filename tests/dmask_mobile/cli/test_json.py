"""``--json`` prints valid JSON and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmask_mobile.cli.app import app
from dmask_mobile.cli.console import print_json
from dmask_mobile.records.space import load_space
from tests.json_schemas import described
from tests.latency_tables.factory import write_table


def test_what_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), (float("inf"), 1.5)], "b": "\x1b[31m\x7f\x9b[/x]é\udcff"})
    text = capsys.readouterr().out
    assert text.replace("\n", "").isascii()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == {"a": [None, [None, 1.5]], "b": "\x1b[31m\x7f\x9b[/x]é\udcff"}


def test_every_command_of_tables_has_it(tmp_path: Path) -> None:
    """Commands that need no device."""
    table = str(write_table(tmp_path / "t.jsonl", load_space("demo")))
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("Conv-input:8x8x3-output:4x4x8: {mean: -1.0}\nLogits-input:4x4x8-output:10: {mean: 0.5}\n")
    how = ["--format", "proxylessnas", "--device", "[red]X", "--runtime", "tflite", "--activation", "relu"]
    printed = {
        words[0]: described(f"table {words[0]}", CliRunner().invoke(app, ["table", *words, "--json"]).stdout)
        for words in (
            ["show", table],
            ["plot", table, "-o", str(tmp_path / "t.png")],
            ["merge", table, "-o", str(tmp_path / "merged.jsonl")],
            ["diff", table, table],
            ["import", str(foreign), *how, "--skip-bad", "-o", str(tmp_path / "imported.jsonl")],
        )
    }
    assert printed["merge"]["num_blocks"] == printed["show"]["num_blocks"] > 0
    assert printed["plot"] == {"picture": str(tmp_path / "t.png")}
    assert printed["import"]["num_blocks"] == 1
    assert "-1" in printed["import"]["findings"][0]
