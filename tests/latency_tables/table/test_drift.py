"""Two clocks: what slows down networks does not slow down blocks, and the other way round."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.records.space import SearchSpace
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.table.rows import BlockRow, BlockSentinelRow, NetworkRow, SentinelRow, TableRow
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import local_head

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
(BLOCK, SIZE), CHILD = blocks_of(SPACE)[0], networks_of(SPACE)[0]
OTHER_BLOCK, OTHER = blocks_of(SPACE)[1], networks_of(SPACE)[1]


def rows(networks: list[float], blocks: list[float]) -> tuple[TableRow, ...]:
    """Sentinels, a block and a network, again and again, slower by these factors in turn."""
    found: list[TableRow] = []
    for number, (network, block) in enumerate(zip(networks, blocks, strict=True)):
        common = {"round": number, "at": "now", "cpu_ms": ()}
        found += [
            SentinelRow(child=CHILD, elapsed_s=number, wall_ms=(10 * network,), **common),
            BlockSentinelRow(block=BLOCK, in_size=SIZE, elapsed_s=number, wall_ms=(block,), **common),
            BlockRow(block=OTHER_BLOCK[0], in_size=OTHER_BLOCK[1], wall_ms=(2 * block,), **common),
            NetworkRow(child=OTHER, wall_ms=(30 * network,), **common),
        ]
    return tuple(found)


def test_blocks_and_networks_have_clocks_of_their_own() -> None:
    ramp = [1 + 0.05 * number for number in range(7)]
    table = LatencyTable(local_head(), rows(ramp, [1.0] * 7), "t")
    assert table.blocks[OTHER_BLOCK] == (2.0, 0.0, False)
    assert table.networks[OTHER].typical_ms == pytest.approx(30 * 1.15, rel=0.04)
    assert table.networks[OTHER].noise < 0.04  # instead of 15%
    assert set(table.sentinels) == {CHILD}
    assert table.block_sentinels == ((BLOCK, SIZE),)


def test_a_table_without_block_sentinels_has_one_clock() -> None:
    ramp = [1 + 0.05 * number for number in range(7)]
    kept = tuple(row for row in rows(ramp, ramp) if not isinstance(row, BlockSentinelRow))
    table = LatencyTable(local_head(), kept, "t")
    assert table.blocks[OTHER_BLOCK].typical_ms == pytest.approx(2 * 1.15, rel=0.04)
    assert table.blocks[OTHER_BLOCK].noise < 0.04


def test_what_was_measured_while_the_device_changed_counts_only_alone() -> None:
    """The last round before the device became 1.5 times as slow may have been of either speed."""
    speeds = [1.0] * 4 + [1.5] * 3
    found = list(rows(speeds, speeds))
    found[15] = found[15].model_copy(update={"wall_ms": (99.0,)})  # of the network, as the change begins
    table = LatencyTable(local_head(), tuple(found), "t")
    assert table.networks[OTHER].typical_ms == pytest.approx(30)
    assert table.networks[OTHER].noise < 0.01
    alone = LatencyTable(local_head(), tuple(r for i, r in enumerate(found) if i == 15 or i % 4 != 3), "t")
    assert alone.networks[OTHER].doubtful
    assert alone.networks[OTHER].typical_ms == pytest.approx(99 / 1.375, rel=0.1)
