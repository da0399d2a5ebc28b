"""The JSON output of every command has a schema, which is made from the printed records."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import typer

from dmask_mobile.cli.console import print_json
from dmask_mobile.cli.deploy_commands import show_verification
from dmask_mobile.cli.json_schemas import json_schemas
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.cli.run_commands import accuracy_json
from dmask_mobile.cli.table_commands import show_table
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.space import load_space
from dmask_mobile.records.verification import Verification
from latency_tables.table.table import LatencyTable
from tests.dmask_mobile.cli.commands import command_named, commands
from tests.dmask_mobile.report.factory import whole_run
from tests.json_schemas import FOLDER, described, schema_of
from tests.latency_tables.factory import write_table

JSON_COMMANDS = [
    " ".join(words)
    for words in commands()
    if any("--json" in parameter.opts for parameter in command_named(words).params)
]
CALLS: dict[str, Callable[[Path, Path], list[object]]] = {
    "report": lambda run, table: [run, "-o", run / "report.html"],
    "status": lambda run, table: [run],
    "plot": lambda run, table: [run, "-o", run / "search.png"],
    "card": lambda run, table: [run],
    "table show": lambda run, table: [table],
    "table merge": lambda run, table: [table, "-o", table.parent / "merged.jsonl"],
    "table diff": lambda run, table: [table, table],
    "space show": lambda run, table: ["demo"],
    "space count": lambda run, table: ["demo"],
}
"""Commands that need neither training nor a device; tests/test_end_to_end.py checks others."""


def test_every_command_has_a_schema_that_is_up_to_date() -> None:
    """The command 'make schemas' writes them again."""
    assert sorted(json_schemas()) == sorted(JSON_COMMANDS)
    assert {path.stem for path in FOLDER.glob("*.json")} == {name.replace(" ", "-") for name in JSON_COMMANDS}
    for command, schema in json_schemas().items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema_of(command) == schema, f"'dmask {command}' prints something else: make schemas"


def test_the_documentation_names_every_command_and_its_schema() -> None:
    text = (FOLDER.parent / "json.md").read_text()
    named = re.findall(r"^\| `dmask ([a-z ]+)` \| \[schema\]\(schemas/([a-z-]+)\.json\) \|", text, re.MULTILINE)
    assert sorted(named) == sorted((command, command.replace(" ", "-")) for command in JSON_COMMANDS)


@pytest.mark.parametrize("command", CALLS)
def test_what_is_printed_is_as_its_schema_says(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "table.jsonl", load_space("demo"))
    arguments = CALLS[command](whole_run(tmp_path / "run").path, table)
    capsys.readouterr()
    assert exit_status_of_command([*command.split(), *map(str, arguments), "--json"]) == 0
    described(command, capsys.readouterr().out)


def test_a_key_that_no_schema_has_is_found() -> None:
    with pytest.raises(jsonschema.ValidationError, match="'more' was unexpected"):
        described("plot", '{"picture": "a.png", "more": 1}')


@pytest.mark.parametrize("command", ["verify", "demo", "profile", "search", "export", "test"])
def test_results_of_long_commands_are_as_their_schemas_say(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output is printed from records, without running the commands' work."""
    folder, space = whole_run(tmp_path / "run"), load_space("demo")
    if command in ("verify", "demo"):
        with pytest.raises(typer.Exit):
            show_verification(Verification.read(folder.verification_path), "runs/a", as_json=True)
    elif command == "profile":
        show_table(LatencyTable.read(write_table(tmp_path / "table.jsonl", space)), space, as_json=True)
    elif command == "search":
        print_json(folder.result().to_dict())
    elif command == "export":
        print_json([artifact.to_dict() for artifact in folder.artifacts()])
    else:
        print_json(accuracy_json(AccuracyRecord.read(folder.test_path)))
    described(command, capsys.readouterr().out)
