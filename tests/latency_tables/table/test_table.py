from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.table.rows import BlockRow, RecheckRow, SentinelRow, TableHead, TableRow
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter
from tests.latency_tables.factory import AT, edit_head, local_head, network_ms, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "t.jsonl", SPACE)


def test_reading_a_cut_line_is_refused_and_writing_drops_it(path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    content = path.read_text()
    cut.write_text(content[:-20])
    with pytest.raises(
        DmaskError, match=r"line \d+, the last one, is incomplete; run 'dmask profile' with the same table"
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
        (
            {"row": "block", "wall_ms": [0.0]},
            r"line 2: .*wall_ms.0: .*greater than or equal to 0.000001, got 0.0",
        ),
    ],
)
def test_a_row_that_means_nothing_is_named(line: dict[str, object], message: str, path: Path, tmp_path: Path) -> None:
    head, garbled = path.read_text().split("\n")[0], tmp_path / "g.jsonl"
    garbled.write_text(f"{head}\n{json.dumps(line)}\n")
    with pytest.raises(DmaskError, match=message):
        LatencyTable.read(garbled)


def test_a_table_of_version_1_goes_on_as_version_5_with_its_digest(tmp_path: Path) -> None:
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
    assert json.loads(after.splitlines()[0]).items() >= {"version": 5, "emulated": True}.items()
    assert '"device_index":1' in after.splitlines()[1]
    assert "functional" not in after
    assert LatencyTable.read(path).digest == before.digest


def test_digests_keep_the_names_of_version_1() -> None:
    """What artifacts, runs and the user's state already name a table by, computed with the first release."""
    table = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v1.jsonl")
    assert (table.digest, table.head.digest()) == ("cb8f7fd715c94a35", "c55b6a901dd630c5")


def test_golden_table_of_version_2_still_reads_with_its_digest() -> None:
    """Its sentinel was 5% slower in the second of two rounds; there are no sentinel blocks."""
    table = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v2.jsonl")
    assert (table.digest, table.head.digest()) == ("6d8ae0eac877372e", "c55b6a901dd630c5")
    assert (table.block_sentinels, table.scale, table.quantile) == ((), 1.0, 0.5)
    assert table.drift[-2:] == pytest.approx([1 / 1.025, 1.05 / 1.025])


def test_golden_table_of_version_3_still_reads_with_its_digest() -> None:
    """Its sentinel took 1.025 times as long as in the first of two rounds, and 1.1 times at the check."""
    table = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v3.jsonl")
    assert (table.digest, table.head.digest()) == ("6a25c2173472325d", "ef00d1d81bf9f4a3")
    assert (len(table.block_sentinels), table.metrics, table.not_reported) == (1, {}, {})
    assert table.scale == pytest.approx(1.1 / 1.025)


def test_golden_table_of_version_4_still_reads_with_its_digest() -> None:
    """The same table with two measurements of the memory of a network, 2 and 3 MB, and without a counter of energy."""
    table = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v4.jsonl")
    assert (table.digest, table.head.digest()) == ("95e2f5d5c58013b7", "ef00d1d81bf9f4a3")
    assert [list(of.values()) for of in table.metrics.values()] == [[2.5e6]]
    assert table.not_reported == {"energy": "there is no counter of energy"}


@pytest.mark.parametrize("slowed", [(False, False, True), (True, True, True)])
def test_slowed_rounds_count_only_where_there_are_no_others(slowed: tuple[bool, ...]) -> None:
    """Of a block and of a sentinel; the last round took three times as long."""
    (block, in_size), child = blocks_of(SPACE)[0], networks_of(SPACE)[0]
    rounds = [
        {"round": number, "at": "now", "cpu_ms": (), "wall_ms": (ms,), "slowed": is_slowed}
        for number, (ms, is_slowed) in enumerate(zip((2.0, 2.0, 6.0), slowed, strict=True))
    ]
    rows = [
        *(SentinelRow(child=child, elapsed_s=1.0, **each) for each in rounds),
        *(BlockRow(block=block, in_size=in_size, **each) for each in rounds),
    ]
    table = LatencyTable(local_head(), tuple(rows), "t")
    assert table.rounds_ms([row for row in rows if isinstance(row, BlockRow)]) == (
        [2.0, 2.0, 6.0] if all(slowed) else [2.0, 2.0]
    )
    assert table.blocks[block, in_size].doubtful is all(slowed)
    assert (table.blocks[block, in_size].noise == 0) is not all(slowed)
    assert (set(table.drift) == {1.0}) is not all(slowed)


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


def head_and(path: Path, *lines: object) -> bytes:
    """The head of the table ``path`` and other lines than its own."""
    head = path.read_bytes().split(b"\n")[0]
    return b"\n".join([head, *(json.dumps(line).encode() for line in lines), b""])


BLOCK = {"kind": "conv", "in_width": 3, "out_width": 8, "kernel": 3}
BLOCK_ROW = {"row": "block", "block": BLOCK, "in_size": 8, "round": 0, "at": AT, "wall_ms": [1.0], "cpu_ms": []}
CHILD = {"name": "c", "resolution": 8, "classes": 8, "blocks": [{"kind": "head", "in_width": 3, "out_width": 8}]}
SENTINEL_ROW = {"row": "sentinel", "child": CHILD, "round": 0, "at": AT, "wall_ms": [1.0], "cpu_ms": [], "elapsed_s": 1}


def test_rows_that_the_next_test_breaks_are_right(path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(head_and(path, BLOCK_ROW, SENTINEL_ROW))
    assert len(LatencyTable.read(tmp_path / "t.jsonl").rows) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (BLOCK_ROW | {"wall_ms": [1e308]}, r"wall_ms.0: .*less than or equal to 10000000, got 1e\+308"),
        (BLOCK_ROW | {"wall_ms": [1e-300]}, r"wall_ms.0: .*greater than or equal to 0.000001, got 1e-300"),
        (BLOCK_ROW | {"wall_ms": [-1.0]}, r"wall_ms.0: .*greater than or equal to 0.000001, got -1.0"),
        (BLOCK_ROW | {"cpu_ms": [-1.0]}, r"cpu_ms.0: .*greater than or equal to 0, got -1.0"),
        (BLOCK_ROW | {"wall_ms": "fast"}, r"wall_ms: .*tuple, got 'fast'"),
        (BLOCK_ROW | {"wall_ms": [1.0] * 1_000_000}, r"wall_ms: .*at most 10000 items"),
        (BLOCK_ROW | {"in_size": 0}, r"in_size: .*greater than or equal to 1, got 0"),
        (BLOCK_ROW | {"in_size": 10**9}, r"in_size: .*less than or equal to 8192, got 1000000000"),
        (BLOCK_ROW | {"in_size": 8.5}, r"in_size: .*integer.*, got 8.5"),
        (BLOCK_ROW | {"round": -1}, r"round: .*greater than or equal to 0, got -1"),
        (BLOCK_ROW | {"block": BLOCK | {"kernel": 2001}}, r"kernel: .*less than or equal to 31, got 2001"),
        (
            BLOCK_ROW | {"block": BLOCK | {"out_width": 10**9}},
            r"out_width: .*less than or equal to 65536, got",
        ),
        (
            BLOCK_ROW | {"block": BLOCK | {"in_width": 65536, "out_width": 65536}},
            r"a layer may have at most 268,435,456",
        ),
        (BLOCK_ROW | {"x" * 10**6: 1}, r"unknown key 'block.x+…'"),
        (SENTINEL_ROW | {"elapsed_s": -1.0}, r"elapsed_s: .*greater than or equal to 0, got -1.0"),
        (SENTINEL_ROW | {"elapsed_s": 1e308}, r"elapsed_s: .*less than or equal to 1000000000, got 1e\+308"),
        (SENTINEL_ROW | {"elapsed_s": "soon"}, r"elapsed_s: .*valid number.*, got 'soon'"),
        (SENTINEL_ROW | {"child": CHILD | {"blocks": [BLOCK] * 100_000}}, r"blocks: .*at most 1000 items"),
        (SENTINEL_ROW | {"child": CHILD | {"resolution": 10**9}}, r"resolution: .*less than or equal to 8192"),
        ({"row": "guess"}, r"'guess'"),
        ([1, 2], r"line 2: "),
        (None, r"line 2: "),
    ],
)
def test_rows_beyond_what_can_be_are_named_in_one_short_line(
    row: object, message: str, path: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "t.jsonl"
    bad.write_bytes(head_and(path, row))
    with pytest.raises(DmaskError, match=message) as raised:
        LatencyTable.read(bad)
    assert "line 2" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(raised.value.problem) < len(str(bad)) + 500


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"row": "block", "row": "block"}', "line 2 is not JSON: key 'row' appears twice"),
        (b'{"row": "\xff"}', "line 2 is not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b'{"row": NaN}', "line 2 is not JSON: NaN is not a number in JSON"),
        (b"[" * 100_000, "line 2 is not JSON: it is nested too deeply"),
        (
            b'"' + b"x" * 30 * 2**20 + b'"',
            r"it has 31,457,\d+ bytes, a line of a table at most 8,388,608",
        ),
        (b'{"row": "block", "in_size": 1' + b"0" * 5000 + b"}", "line 2 is not JSON: Exceeds the limit"),
        (b"", "line 2 is not JSON: Expecting value"),
    ],
    ids=["twice", "latin-1", "nan", "nested", "30 MB", "long integer", "blank"],
)
def test_lines_that_are_no_json_are_named(line: bytes, message: str, path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "t.jsonl"
    bad.write_bytes(head_and(path) + line + b"\n")
    with pytest.raises(DmaskError, match=message) as raised:
        LatencyTable.read(bad)
    assert len(raised.value.problem) < len(str(bad)) + 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads: .*greater than or equal to 1"),
        ({"cores": 10**9}, "cores: .*less than or equal to 4096"),
        ({"device": "d" * 10_000}, "device: .*at most 1000 characters"),
        ({"clocks_mhz": [-1]}, "clocks_mhz.0: .*greater than or equal to 0"),
        ({"format": "dmask-run"}, "format must be 'dmask-latency-table', found 'dmask-run'"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_heads_that_cannot_be_are_named(changes: dict[str, object], message: str, path: Path, tmp_path: Path) -> None:
    bad = tmp_path / "t.jsonl"
    bad.write_bytes(path.read_bytes())
    edit_head(bad, **changes)
    with pytest.raises(DmaskError, match=message):
        LatencyTable.read(bad)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(DmaskError, match="is not a regular file"):
            LatencyTable.read(path)
    (tmp_path / "notes.txt").write_bytes(b"no line end, so nothing that was cut off")
    with pytest.raises(DmaskError, match=r"notes.txt': line 1 is not JSON: Expecting value"):
        LatencyTable.read(tmp_path / "notes.txt")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(DmaskError, match=r"line 1 is not JSON.*give a table made by 'dmask profile'"):
        LatencyTable.read(tmp_path / "empty.jsonl")


def test_a_check_scales_the_table_to_the_device_as_it_is_now(tmp_path: Path) -> None:
    """Both sentinels ran 1.2 times as fast when the device was checked for the second time."""
    path, children = write_table(tmp_path / "t.jsonl", SPACE, networks=12), networks_of(SPACE)[:2]
    before, child = LatencyTable.read(path), SPACE.child(SPACE.largest())
    with TableWriter(path, local_head()) as writer:
        for number, speed in enumerate((1.0, 2.0, 1.2)):
            for sentinel in children:
                ms, common = (network_ms(sentinel) / speed,), {"at": AT, "cpu_ms": (), "child": sentinel}
                if number == 0:
                    writer.add(SentinelRow(round=0, elapsed_s=1.0, wall_ms=ms, **common))
                else:
                    writer.add(RecheckRow(round=0, check=number - 1, wall_ms=ms, **common))
    table = LatencyTable.read(path)
    assert table.scale == pytest.approx(1 / 1.2)
    assert table.digest != before.digest
    predicted = Latency(LatencyModel(table)).estimate(child).value
    assert predicted == pytest.approx(network_ms(child) / 1.2, rel=1e-6)
    assert table.drift_of({sentinel: [network_ms(sentinel)] for sentinel in children}) == pytest.approx(0.2)


def test_a_processor_that_is_not_known_agrees_with_any() -> None:
    known = local_head().model_copy(update={"cpu": "family 25, model 1, stepping 1", "governor": "", "turbo": "on"})
    older = known.model_copy(update={"cpu": "", "turbo": ""})
    older.check_same(known, "t")
    known.check_same(older, "t")
    assert older.digest() != known.digest()
    for change in ({"cpu": "family 25, model 17, stepping 1"}, {"turbo": "off"}, {"cpu_limit": 1.5}):
        ((name, value),) = change.items()
        with pytest.raises(DmaskError, match=rf"{name} of the table is .*, here it is '{value}'"):
            known.check_same(known.model_copy(update=change), "t")
