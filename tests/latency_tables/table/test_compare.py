from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from latency_tables.table.compare import diff, merge
from latency_tables.table.rows import BlockRow, FailureRow
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import AT, edit_head, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[LatencyTable]:
    folder = tmp_path_factory.mktemp("compare")
    spaces = (SPACE, SPACE.with_classes(7))
    return [LatencyTable.read(write_table(folder / f"{number}.jsonl", space)) for number, space in enumerate(spaces)]


def test_merged_tables_hold_every_row_once(tables: list[LatencyTable], tmp_path: Path) -> None:
    merged = merge([*tables, tables[0]], tmp_path / "m.jsonl")
    assert set(merged.rows) == set(tables[0].rows) | set(tables[1].rows)
    assert len(merged.rows) == len(set(merged.rows))
    with pytest.raises(DmaskError, match="exists"):
        merge(tables, tmp_path / "m.jsonl")


def test_what_one_of_them_measured_has_not_failed(tables: list[LatencyTable], tmp_path: Path) -> None:
    first = tables[0]
    (block, in_size), *_ = first.blocks
    failure = FailureRow(at=AT, block=block, in_size=in_size, reason="crashed")
    failing = LatencyTable(first.head, (failure,), "failing")
    assert merge([first, failing], tmp_path / "m.jsonl").failures == {}


def test_like_with_like_only(tables: list[LatencyTable], tmp_path: Path) -> None:
    path = write_table(tmp_path / "other.jsonl", SPACE)
    edit_head(path, threads=4)
    other = LatencyTable.read(path)
    for compare in (lambda: merge([tables[0], other], tmp_path / "m.jsonl"), lambda: diff(tables[0], other)):
        with pytest.raises(DmaskError, match="threads of the table is '1', here it is '4'"):
            compare()


def test_differences_begin_with_the_largest(tables: list[LatencyTable]) -> None:
    first = tables[0]
    slower = [
        row.model_copy(update={"wall_ms": (row.wall_ms[0] * factor,), "cpu_ms": ()})
        for row, factor in zip((r for r in first.rows if isinstance(r, BlockRow)), (2.0, 1.1, 1.1), strict=False)
    ]
    found = diff(first, LatencyTable(first.head, tuple(slower), "slower"))
    assert len(found.common) == 3
    assert found.common[0].change == pytest.approx(1.0)
    assert found.median_change == pytest.approx(0.1)
    assert (found.only_first, found.only_second) == (len(first.blocks) + len(first.networks) - 3, 0)


def test_nothing_in_common(tables: list[LatencyTable]) -> None:
    with pytest.raises(DmaskError, match="have no block or network in common"):
        diff(tables[0], LatencyTable(tables[0].head, (), "empty"))
