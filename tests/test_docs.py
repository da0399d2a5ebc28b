"""README and docs: every block of commands runs here or says why not, and every command that they name exists."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dmask_mobile.cli.app import app
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.records.recipe import Recipe
from dmask_mobile.records.space import SearchSpace, load_space
from latency_tables.devices.native_output import Measurement
from tests.dmask_mobile.report.factory import whole_run
from tests.latency_tables.factory import write_table

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
REASON = re.compile(r"<!-- not run: (.+) -->\n$")
COMMAND_LANGUAGES = ("", "bash", "sh", "console")
FORM_OF_A_COMMAND = re.compile(r"[\[\]|]|\.\.\.")  # not to be typed as it stands
DMASK: Any = typer.main.get_command(app)
QUICK = ("space", "table", "report", "status", "plot", "card")
"""Commands that end within seconds on the folder below."""
RECORDS = {record.file_format: record for record in (SearchSpace, Recipe, Measurement)}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language and lines, and why its commands are not run ('' if they are)."""

    page: str
    line: int
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[str]:
        """Its lines without comments; a line that ends with a backslash, or begins with spaces, is part of another."""
        joined = re.sub(r"\\\n *|\n +", " ", self.text)
        return [stripped for line in joined.splitlines() if (stripped := re.sub(r"(^|\s+)#.*", "", line).strip())]


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in FENCE.finditer(text):
            indent, language, content = found.groups()
            reason = REASON.search(text[: found.start()])
            yield Block(
                page=str(page.relative_to(ROOT)),
                line=text.count("\n", 0, found.start()) + 1,
                language=language,
                text=re.sub(f"^{indent}", "", content, flags=re.MULTILINE),
                reason=reason[1] if reason else "",
            )


BLOCKS = list(blocks())
COMMAND_BLOCKS = [block for block in BLOCKS if block.language in COMMAND_LANGUAGES]
RUN_HERE = [block for block in COMMAND_BLOCKS if not block.reason]


def test_blocks_are_found() -> None:
    """Otherwise the tests below would say nothing."""
    assert len(COMMAND_BLOCKS) > 20
    assert len(RUN_HERE) > 4
    assert sum(page.read_text().count("```") for page in PAGES) == 2 * len(BLOCKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: with the run folders, tables and files of a user's that they name."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("a", "b"):
        whole_run(folder / "runs" / name)
    space = load_space("demo")
    write_table(folder / "table.jsonl", space)
    (folder / "my_space.yaml").write_text(yaml.safe_dump(space.to_dict()))
    shutil.copy(ROOT / "examples" / "depth_cost.py", folder)
    return folder


@pytest.mark.parametrize("block", RUN_HERE, ids=str)
def test_commands_run(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for command in block.commands():
        program, *arguments = shlex.split(command)
        is_quick = program == "dmask" and arguments[0] in QUICK
        assert is_quick, (
            f"'{command}' cannot be run here: say why in the line before the block, <!-- not run: REASON -->"
        )
        assert exit_status_of_command(arguments) == 0, capsys.readouterr()


def dmask_commands(text: str) -> Iterator[str]:
    """The parts of a text that follow the program's name: what dmask would be given."""
    for part in re.split(r"(?:^|(?<=\s))(?:dmask|-m dmask_mobile) ", text)[1:]:
        yield part.strip()


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words that follow."""
    command, rest = DMASK, list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def check_names(text: str) -> None:
    """Checks that the command exists and has every option that the text names."""
    command, rest = resolve(text.split())
    assert not hasattr(command, "commands") or not rest or rest[0].startswith("-"), f"no such command: dmask {text}"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    named = set(re.findall(r"(?<![\w.-])--?[a-z][a-z-]*", text))
    assert named <= known | {"--help", "-h"}, f"dmask {text}"


@pytest.mark.parametrize("block", COMMAND_BLOCKS, ids=str)
def test_command_lines_parse(block: Block) -> None:
    for line in block.commands():
        for text in dmask_commands(line):
            check_names(text)
            if not FORM_OF_A_COMMAND.search(text):
                command, rest = resolve(shlex.split(text))
                command.make_context("dmask", rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_exist(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for span in re.findall(r"`([^`]+)`", prose):
        for text in dmask_commands(" ".join(span.split())):
            if text != "COMMAND --help":
                check_names(text)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("python", "json", "yaml")], ids=str)
def test_code_and_files_are_well_formed(block: Block) -> None:
    if block.language == "python":
        ast.parse(block.text)
        return
    content = yaml.safe_load(block.text) if block.language == "yaml" else json.loads(block.text)
    RECORDS[content["format"]].from_dict(content, str(block))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"])
def test_links_lead_to_files(name: str) -> None:
    """Those of the other pages are checked when the site is built."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_reference_has_every_file_format() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "hooks" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    sources = (
        path.read_text() for p in ("dmask_mobile", "export", "latency_tables") for path in (ROOT / p).rglob("*.py")
    )
    declared = {name for source in sources for name in re.findall(r"file_format: ClassVar\[str\] = \"(.+)\"", source)}
    assert {record.file_format for record in reference.file_records()} == declared
