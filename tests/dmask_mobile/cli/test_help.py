"""Help, completion, and what `--quiet` leaves out."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dmask_mobile.cli.console import logger
from dmask_mobile.cli.help import examples_of
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.cli.progress import ShownProgress
from tests.dmask_mobile.cli.commands import ROOT, command_named, commands


@pytest.fixture(autouse=True)
def _logger_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(logger, name, getattr(logger, name))


def test_commands_are_grouped_in_the_order_of_their_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_status_of_command(["--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    order = ["Set up", "devices", "doctor", "The chain", "demo", "profile", "search", "train", "test", "export",
             "verify", "sweep", "Look", "report", "status", "plot", "card", "table", "space"]  # fmt: skip
    places = [said.index(f"─ {word}" if word[0].isupper() else f"│ {word} ") for word in order]
    assert places == sorted(places)
    page = Path(__file__).parents[3] / "docs" / "command_line.md"
    shown = page.read_text().split("```text\n")[1].split("```")[0]
    assert [line for line in map(str.rstrip, said.splitlines()) if line] == [
        line for line in shown.splitlines() if line
    ]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_example_is_a_command_that_can_be_given(words: tuple[str, ...]) -> None:
    """The arguments are parsed, but nothing is run."""
    examples = [line for line in examples_of(command_named(words).callback) if line.startswith("dmask ")]
    assert any(line.split()[1 : 1 + len(words)] == list(words) for line in examples)
    for line in examples:
        _, *given = shlex.split(line)
        command = ROOT
        while hasattr(command, "commands"):
            command = command.commands[given.pop(0)]
        command.make_context("dmask", given)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_cuts_nothing_off_in_80_columns(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help shows the example, every option and each word of its description."""
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_status_of_command([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    said = " ".join(" ".join(lines).replace("│", " ").split())
    command = command_named(words)
    example = next(line for line in examples_of(command.callback) if line.startswith(f"dmask {' '.join(words)}"))
    assert f"Example: {example}" in said
    assert "[/bold]" not in said
    for parameter in command.params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert (parameter.metavar or name if parameter.param_type_name == "argument" else name) in said
        assert set((parameter.help or "").split()) <= set(said.split())
    assert words != ("search",) or "--loss <name> The loss of the gates" in said
    assert words != ("search",) or "[default: budget] [one of: budget, fbnet, linear]" in said


@pytest.mark.parametrize(("shell", "line"), [("bash", "complete -o default -F"), ("zsh", "#compdef dmask")])
def test_completion_prints_a_script(
    shell: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, shell))
    assert exit_status_of_command(["--show-completion"]) == 0
    script = capsys.readouterr().out
    assert line in script
    assert "_DMASK_COMPLETE" in script


@pytest.mark.parametrize(("shell", "status", "files"), [("fish", 0, ["dmask.fish"]), ("tcsh", 2, [])])
def test_completion_is_installed_for_shells_that_are_known(
    shell: str, status: int, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, shell))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert exit_status_of_command(["--install-completion"]) == status
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == files


def test_a_shell_is_told_the_words_that_may_come_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"_DMASK_COMPLETE": "complete_bash", "COMP_WORDS": "dmask table m", "COMP_CWORD": "2"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert exit_status_of_command([]) == 0
    assert capsys.readouterr().out.split() == ["merge"]


@pytest.mark.parametrize(
    ("options", "shown"),
    [([], ["warning: careful"]), (["--quiet"], []), (["--debug"], ["info: read", "warning: careful"])],
)
def test_what_the_library_logs(
    options: list[str], shown: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMASK_DEBUG", "")
    exit_status_of_command([*options, "space", "show", "demo", "--json"])
    capsys.readouterr()
    library = logging.getLogger("dmask_mobile.data.load")
    library.info("read")
    library.warning("careful")
    with ShownProgress() as progress:
        progress("train", 1, 1)
    said = capsys.readouterr().err.splitlines()
    assert said == [*shown, *([] if options == ["--quiet"] else ["train 1/1"])]


def test_help_loads_no_record_and_none_of_our_steps() -> None:
    """They would take longer to load than everything else."""
    code = "import sys; from dmask_mobile.cli.app import app; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"pydantic", "torch", "numpy", "yaml"} & set(loaded)
    assert not [name for name in loaded if name.startswith(("dmask_mobile.api.", "latency_tables", "export"))]
