from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.table.rows import BlockRow, SentinelRow, TableHead, TableRow
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter
from tests.latency_tables.factory import AT, edit_head, local_head, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "t.jsonl", SPACE)


def test_reading_a_cut_line_is_refused_and_writing_drops_it(path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    content = path.read_text()
    cut.write_text(content[:-20])
    with pytest.raises(
        DmaskError, match=r"line \d+, the last one, is cut off; run 'dmask profile' with the same table"
    ):
        LatencyTable.read(cut)
    with TableWriter(cut, local_head()) as writer:
        assert writer.dropped_line
    assert cut.read_text() == content[: content.rstrip("\n").rfind("\n") + 1]


def test_a_garbled_line_is_named(path: Path, tmp_path: Path) -> None:
    garbled = tmp_path / "g.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace('"wall_ms"', '"wall"')
    garbled.write_text("\n".join(lines) + "\n")
    with pytest.raises(DmaskError, match=r"line 4: .*unknown key|line 4: .*missing"):
        LatencyTable.read(garbled)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"row": "failure", "at": AT, "reason": "bad"},
            "line 2: .*a failure names a child, or a block",
        ),
        ({"row": "block", "wall_ms": [0.0]}, "line 2: .*wall_ms.*greater than 0"),
    ],
)
def test_a_row_that_means_nothing_is_named(line: dict[str, object], message: str, path: Path, tmp_path: Path) -> None:
    head, garbled = path.read_text().split("\n")[0], tmp_path / "g.jsonl"
    garbled.write_text(f"{head}\n{json.dumps(line)}\n")
    with pytest.raises(DmaskError, match=message):
        LatencyTable.read(garbled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "Pixel 6"}, r"device of the table is 'Pixel 6', here it is"),
        ({"runtime_version": "0.1"}, r"runtime_version of the table is '0.1', here it is"),
        ({"threads": 8}, r"threads of the table is '8', here it is '1'"),
        ({"version": 3}, r"version 3 of dmask-latency-table, but this dmask-mobile reads version 1 and 2"),
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


def test_a_table_of_version_1_goes_on_as_version_2_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = (Path(__file__).parents[2] / "golden" / "table_v1.jsonl").read_text().splitlines()
    head = json.loads(lines[0]) | {"functional": True}
    second = json.loads(lines[1]) | {"unit": 1}
    path.write_text("\n".join([json.dumps(head), json.dumps(second), *lines[2:]]) + "\n")
    before = LatencyTable.read(path)
    assert before.head.emulated
    assert before.rows[0].device_index == 1  # type: ignore[union-attr]
    with TableWriter(path, before.head):
        pass
    after = path.read_text()
    assert json.loads(after.splitlines()[0]).items() >= {"version": 2, "emulated": True}.items()
    assert '"device_index":1' in after.splitlines()[1]
    assert "functional" not in after
    assert LatencyTable.read(path).digest == before.digest


def test_digests_keep_the_names_of_version_1() -> None:
    """What artifacts, runs and the user's state already name a table by, computed with the first release."""
    table = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v1.jsonl")
    assert (table.digest, table.head.digest()) == ("cb8f7fd715c94a35", "c55b6a901dd630c5")


def rows_with_drift(factors: list[float], head: TableHead) -> LatencyTable:
    """A sentinel, then a block, again and again, on a machine that is slower by each factor in turn."""
    (block, in_size), child = blocks_of(SPACE)[0], networks_of(SPACE)[0]
    rows: list[TableRow] = []
    for round_, factor in enumerate(factors):
        sentinel, ms = (10 * factor,), (2 * factor,)
        common = {"round": round_, "at": "now", "cpu_ms": ()}
        rows.append(SentinelRow(child=child, elapsed_s=round_, wall_ms=sentinel, **common))
        rows.append(BlockRow(block=block, in_size=in_size, wall_ms=ms, **common))
    return LatencyTable(head, tuple(rows), "drifting")


def test_drift_is_taken_off_by_the_sentinels() -> None:
    steady, slow = [1.0] * 7, [1.0] * 4 + [1.3] * 3
    for factors in (steady, slow):
        table = rows_with_drift(factors, local_head())
        (summary,) = table.blocks.values()
        assert summary.typical_ms == pytest.approx(2)
        assert summary.noise < 0.08  # the step from one speed to the other lies between two sentinels
    assert table.drift[0] == 1
    assert table.drift[-1] == pytest.approx(1.3)
    (sentinel,) = table.sentinels.values()
    assert sentinel.typical_ms == 10


def test_one_disturbed_sentinel_changes_nothing() -> None:
    table = rows_with_drift([1, 1, 1, 9, 1, 1, 1], local_head())
    assert table.drift.tolist() == [1.0] * 14


def test_two_writers_of_one_table_are_refused(path: Path) -> None:
    with TableWriter(path, local_head()), pytest.raises(DmaskError, match=r"another 'dmask profile' .* is writing to"):
        TableWriter(path, local_head()).__enter__()
    with TableWriter(path, local_head()):
        pass  # free again
