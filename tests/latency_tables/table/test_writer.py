"""Appending to tables, and files that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter, check_appendable
from tests.latency_tables.factory import edit_head, local_head, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "t.jsonl", SPACE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "Pixel 6"}, r"device of the table is 'Pixel 6', here it is"),
        ({"runtime_version": "0.1"}, r"runtime_version of the table is '0.1', here it is"),
        ({"threads": 8}, r"threads of the table is '8', here it is '1'"),
        (
            {"version": 6},
            r"version 6 of dmask-latency-table, but this dmask-mobile reads version 1 and 2 and 3 and 4 and 5",
        ),
    ],
)
def test_a_table_of_something_else_is_refused(
    changes: dict[str, object], message: str, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(path.read_text())
    edit_head(other, **changes)
    with pytest.raises(DmaskError, match=message):
        TableWriter(other, local_head()).__enter__()


def test_two_writers_of_one_table_are_refused(path: Path) -> None:
    with TableWriter(path, local_head()), pytest.raises(DmaskError, match=r"another 'dmask profile' .* is writing to"):
        TableWriter(path, local_head()).__enter__()
    with TableWriter(path, local_head()):
        pass  # free again


FOREIGN = {
    "settings.json": b'{"a": 1,\n "b": 2}',
    "one-line.json": b'{"a": 1}',
    "run.json": b'{"format": "dmask-run", "version": 1}\n',
    "notes.txt": b"remember the milk\nand more",
    "photo.png": b"\x89PNG\r\n\x1a\n\x00\xff",
    "newer.jsonl": b'{"format": "dmask-latency-table", "version": 9}\nrest',
    "blank": b"\n",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_something_else_keeps_every_byte(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / name
    foreign.write_bytes(FOREIGN[name])
    with pytest.raises(DmaskError, match=r"is not a latency table that .*; choose another file with -o"):
        TableWriter(foreign, local_head()).__enter__()
    assert foreign.read_bytes() == FOREIGN[name]
    assert list(tmp_path.iterdir()) == [foreign]  # nothing was put beside it


def test_a_folder_and_a_pipe_are_no_tables(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(DmaskError, match="is a folder or a device, not a latency table"):
            check_appendable(path)


@pytest.mark.parametrize("length", [0, 40])
def test_an_empty_file_and_a_cut_head_become_a_table(length: int, path: Path, tmp_path: Path) -> None:
    begun = tmp_path / "t.jsonl"
    begun.write_bytes(path.read_bytes()[:length])
    with TableWriter(begun, local_head()) as writer:
        assert writer.dropped_line == (length > 0)
    assert LatencyTable.read(begun).head.device == local_head().device


@pytest.mark.parametrize("broken", ["head", "row"])
def test_a_table_that_is_refused_keeps_its_cut_line(broken: str, path: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    lines = path.read_text().splitlines()
    if broken == "row":
        lines[2] = "{}"
    table.write_text("\n".join(lines)[:-20])
    if broken == "head":
        head = json.loads(lines[0]) | {"device": "Pixel 6"}
        table.write_text("\n".join([json.dumps(head), *lines[1:]])[:-20])
    before = table.read_bytes()
    with pytest.raises(DmaskError, match=r"device of the table is 'Pixel 6'|line 3"):
        TableWriter(table, local_head()).__enter__()
    assert table.read_bytes() == before


def test_a_link_leads_to_the_same_lock_and_stays_a_link(path: Path, tmp_path: Path) -> None:
    golden = (Path(__file__).parents[2] / "golden" / "table_v1.jsonl").read_bytes()
    real, link = tmp_path / "real" / "t.jsonl", tmp_path / "link.jsonl"
    real.parent.mkdir()
    real.write_bytes(golden)
    link.symlink_to(real)
    head = LatencyTable.read(real).head
    for first, second in ((link, real), (real, link)):
        with TableWriter(first, head), pytest.raises(DmaskError, match="is writing to"):
            TableWriter(second, head).__enter__()
    assert link.is_symlink()  # although version 1 was written again as version 5
    assert LatencyTable.read(link).rows == LatencyTable.read(real).rows
    assert json.loads(real.read_text().splitlines()[0])["version"] == 5
    dangling = tmp_path / "dangling.jsonl"
    dangling.symlink_to(tmp_path / "new" / "t.jsonl")
    with TableWriter(dangling, local_head()):
        pass
    assert LatencyTable.read(tmp_path / "new" / "t.jsonl").rows == ()
