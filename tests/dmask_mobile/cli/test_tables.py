"""Latency tables as people see them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dmask_mobile.cli.app import app
from dmask_mobile.cli.tables import latency_table_summary
from dmask_mobile.records.space import load_space
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import edit_head, write_table


def test_what_a_table_says_is_no_markup(tmp_path: Path) -> None:
    """A table may be untrusted, and an IPv6 address is written in brackets."""
    path = write_table(tmp_path / "t.jsonl", load_space("demo"))
    words = {"device": "[red]Phone[/red]", "soc": "a [/] b", "runtime_version": "[bold", "reached_at": "ssh:[fe80::1]"}
    edit_head(path, **words)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(latency_table_summary(LatencyTable.read(path)))
    assert all(word in shown.get() for word in words.values())


@pytest.mark.parametrize(("columns", "shows"), [("80", True), ("24", False)])
def test_the_map_of_widths_is_shown_where_it_fits(
    columns: str, shows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six widths with two digits, which need 36 columns with their frame; cut numbers would be wrong ones."""
    monkeypatch.setattr("dmask_mobile.cli.console.console.width", int(columns))
    path = write_table(tmp_path / "t.jsonl", load_space("demo"))
    said = CliRunner().invoke(app, ["table", "show", str(path)]).stdout
    assert ("by width in (down)" in " ".join(said.split())) == shows
    assert ("dmask table plot" in " ".join(said.split())) == (not shows)
