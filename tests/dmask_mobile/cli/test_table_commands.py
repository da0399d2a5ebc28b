"""``dmask table`` and ``dmask profile``: their output, the input that they refuse, and that they destroy nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dmask_mobile.cli.app import app
from dmask_mobile.errors import DmaskError
from dmask_mobile.pictures import check_picture
from dmask_mobile.records.space import load_space
from latency_tables.profiling.plan import networks_of
from latency_tables.table.rows import BlockRow, FailureRow, NetworkRow, SentinelRow
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import write_new_table
from tests.latency_tables.factory import AT, edit_head, local_head, write_table

SPACE = load_space("demo")
CHILD = networks_of(SPACE)[0]
MARKUP = "[bold] :smile: [red]x"  # a name may hold it
EVIL = "[/x] [bold] \x1b[31m :smile:"
MEASURED = {"round": 0, "at": AT, "wall_ms": (1.0,), "cpu_ms": ()}
EARLY_ENDS = {
    "head only": (),
    "one sentinel": (SentinelRow(child=CHILD, elapsed_s=1, **MEASURED),),
    "one network, no blocks": (NetworkRow(child=CHILD, **MEASURED),),
    "one failure": (FailureRow(at=AT, child=CHILD, reason="the runtime crashed"),),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def shown_by(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exception is None, done.exception
    return done.output


def refusal_of(*arguments: object) -> str:
    done = run(*arguments)
    assert isinstance(done.exception, DmaskError), done.exception
    return str(done.exception)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("tables") / "t.jsonl", SPACE)


@pytest.mark.parametrize("how", EARLY_ENDS)
def test_a_table_whose_profile_ended_early_is_shown(how: str, tmp_path: Path) -> None:
    early = tmp_path / "t.jsonl"
    write_new_table(early, local_head(), EARLY_ENDS[how])
    text = shown_by("table", "show", early)
    assert "whole networks" in text
    assert "unknown: too few whole networks" in text
    told = json.loads(shown_by("table", "show", early, "--json"))
    assert (told["num_blocks"], told["error"]) == (0, None)
    assert shown_by("table", "merge", early, early, "-o", tmp_path / "both.jsonl")
    assert LatencyTable.read(tmp_path / "both.jsonl").rows == LatencyTable.read(early).rows


@pytest.mark.parametrize("how", ["head only", "one failure"])
def test_a_table_without_measurements_is_neither_drawn_nor_compared(how: str, tmp_path: Path) -> None:
    early = tmp_path / "t.jsonl"
    write_new_table(early, local_head(), EARLY_ENDS[how])
    assert "holds no measured block to draw" in refusal_of("table", "plot", early, "-o", tmp_path / "t.png")
    assert "have no block or network in common" in refusal_of("table", "diff", early, early)


def test_a_table_of_a_few_blocks_is_drawn(tmp_path: Path) -> None:
    (block, in_size), *_ = CHILD.located_blocks()
    rows = [BlockRow(block=block, in_size=in_size, **MEASURED)]
    write_new_table(tmp_path / "t.jsonl", local_head(), rows)
    shown_by("table", "plot", tmp_path / "t.jsonl", "-o", tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_what_files_say_is_shown_as_it_is(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[bold]x"
    folder.mkdir()
    first, second, both = folder / "a[red].jsonl", folder / "b.jsonl", folder / "c[x].jsonl"
    first.write_bytes(table.read_bytes())
    edit_head(first, device=EVIL, soc=EVIL)
    evil = NetworkRow(child=CHILD.model_copy(update={"name": MARKUP}), **MEASURED)
    write_new_table(second, LatencyTable.read(first).head, [evil])
    escaped = EVIL.replace("\x1b", "\\x1b")
    for word, *arguments in (
        (escaped, "show", first),
        (escaped, "merge", first, second, "-o", both),
        (MARKUP, "diff", second, second),
    ):
        text = shown_by("table", *arguments)
        assert "\x1b" not in text
        assert word in text
    assert "c[x].jsonl" in shown_by("table", "show", both).replace("\n", "")  # a long path is folded
    assert "p[x].png" in shown_by("table", "plot", first, "-o", folder / "p[x].png")


@pytest.mark.parametrize("name", ["settings.json", "run.json", "photo.png"])
def test_profile_leaves_a_foreign_file_as_it_is(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / name
    foreign.write_bytes(b'{"a": 1,\n "b": 2}')
    assert "is not a latency table" in refusal_of("profile", "demo", "-o", foreign)
    assert foreign.read_bytes() == b'{"a": 1,\n "b": 2}'
    assert list(tmp_path.iterdir()) == [foreign]


def test_a_table_that_ships_is_not_measured_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CHILD.write(tmp_path / "child.json")
    name = "epyc-onnxruntime-1thread-demo"
    assert f"no file '{name}' to measure into" in refusal_of("profile", "--missing", "child.json", "--table", name)
    assert [path.name for path in tmp_path.iterdir()] == ["child.json"]


def test_merge_and_import_never_write_over_a_file(table: Path, tmp_path: Path) -> None:
    source, there, link = tmp_path / "p.yaml", tmp_path / "there", tmp_path / "link"
    source.write_text("Logits-input:7x7x8-output:10: {mean: 1.0}\n")
    there.write_text("mine")
    link.symlink_to(tmp_path / "nothing")
    importing = ("import", source, "--format", "proxylessnas", "--device", "d", "--runtime", "r")
    for output in (there, link, tmp_path):
        for arguments in (("merge", table, table), importing):
            assert "exists; give another file with -o" in refusal_of("table", *arguments, "-o", output)
    assert there.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_an_import_says_what_it_left_out(tmp_path: Path) -> None:
    source, output = tmp_path / "m.jsonl", tmp_path / "t[x].jsonl"
    line = {
        "op_type": "Int8ConvRelu", "op_args": ['name: "kernel"\ni: 1\n'],
        "input_shapes": [[1, 8, 4, 4], [16, 8, 1, 1]], "runtime_us_p50": 10.0,
    }  # fmt: skip
    bad = [line | {"op_type": EVIL}] * 60
    source.write_text("".join(json.dumps(entry) + "\n" for entry in [line, *bad]))
    how = (source, "--format", "mobile-vision", "--device", EVIL, "--runtime", "caffe2", "-o", output)
    assert "has 60 entries that are wrong or are not known blocks" in refusal_of("table", "import", *how)
    text = shown_by("table", "import", *how, "--skip-bad")
    assert "line 2: operator '[/x] [bold] \\x1b[31m :smile:' corresponds to no block" in text
    assert "and 10 more" in text
    assert "1 blocks in" in text
    assert LatencyTable.read(output).head.precision == "int8"
    assert "no activation 'gelu'; choose one of relu, hswish" in refusal_of(
        "table", "import", *how[:-1], tmp_path / "new.jsonl", "--activation", "gelu"
    )


def test_a_picture_replaces_only_a_picture_of_ours(table: Path, tmp_path: Path) -> None:
    for name, start in (("t.png", b"\x89PNG"), ("t.svg", b"<?xml")):
        picture = tmp_path / "new" / name
        shown_by("table", "plot", table, "-o", picture)
        first = picture.read_bytes()
        shown_by("table", "plot", table, "-o", picture)
        assert picture.read_bytes() == first
        assert first.startswith(start)
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"\x89PNG\r\n\x1a\nof somebody")
    (tmp_path / "folder.png").mkdir()
    message = refusal_of("table", "plot", table, "-o", photo)
    assert "exists and is not a picture that dmask-mobile drew; give another file" in message
    assert "folder.png' is a folder" in refusal_of("table", "plot", table, "-o", tmp_path / "folder.png")
    assert photo.read_bytes() == b"\x89PNG\r\n\x1a\nof somebody"
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(table.read_bytes())
    assert "a picture must be a PNG or SVG file" in refusal_of("table", "plot", table, "-o", copy)
    assert copy.read_bytes() == table.read_bytes()


def test_an_evaluation_checks_its_picture_before_it_measures(table: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    message = refusal_of("table", "evaluate", table, "--space", "demo", "--plot", tmp_path / "photo.png")
    assert "is not a picture that dmask-mobile drew" in message
    with pytest.raises(DmaskError, match=r"a picture must be a PNG or SVG file, got 'a.jpg'"):
        check_picture(Path("a.jpg"))
