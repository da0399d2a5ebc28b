from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.supernet.gates import one_hot_gates
from latency_tables.statistics import fit_line, summarize
from latency_tables.table import LatencyTable, TableWriter
from tests.latency_tables.factory import OFFSET_MS, SCALE, edit_head, local_head, network_ms, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "t.jsonl", SPACE)


def test_prediction_is_the_formula_that_made_the_table(path: Path) -> None:
    latency = Latency(LatencyTable.read(path))
    generator = random.Random(0)
    for _ in range(20):
        child = SPACE.child(SPACE.sample(generator))
        assert latency.estimate(child).value == pytest.approx(network_ms(child), rel=1e-6)
    offset, scale = latency.correction(32)
    assert offset == pytest.approx(OFFSET_MS, abs=1e-6)
    assert scale == pytest.approx(SCALE, rel=1e-6)


def test_expected_latency_at_one_hot_gates_is_the_estimate(path: Path) -> None:
    latency = Latency(LatencyTable.read(path))
    chain = latency.on(SPACE)
    generator = random.Random(1)
    for _ in range(20):
        choice = SPACE.sample(generator)
        expected = chain.expected(one_hot_gates(SPACE, choice, torch.float64)).item()
        assert expected == pytest.approx(latency.estimate(SPACE.child(choice)).value, rel=1e-12)
        assert chain.cost(choice) == pytest.approx(expected, rel=1e-12)


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
    ("changes", "message"),
    [
        ({"device": "Pixel 6"}, r"device of the table is 'Pixel 6', here it is"),
        ({"runtime_version": "0.1"}, r"runtime_version of the table is '0.1', here it is"),
        ({"threads": 8}, r"threads of the table is '8', here it is '1'"),
        ({"version": 2}, r"version 2 of dmask-latency-table, but this dmask-mobile reads version 1"),
    ],
)
def test_a_table_of_something_else_is_refused(
    changes: dict[str, object], message: str, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(path.read_text())
    edit_head(other, **changes)
    with pytest.raises(DmaskError, match=message):
        TableWriter(other, local_head())


def test_a_missing_block_is_an_error_with_its_name(path: Path) -> None:
    other = SPACE.with_classes(7)
    with pytest.raises(DmaskError, match=r"no row for head 192->7 at 2x2|no row for head \d+->7 at 4x4"):
        Latency(LatencyTable.read(path)).on(other)


def test_too_few_whole_networks(tmp_path: Path) -> None:
    table = LatencyTable.read(write_table(tmp_path / "t.jsonl", SPACE, networks=2))
    with pytest.raises(DmaskError, match=r"fewer than 3 whole networks at 32 px"):
        table.correction(32)


def test_golden_table_of_version_1_still_reads() -> None:
    table = LatencyTable.read(Path(__file__).parents[1] / "golden" / "table_v1.jsonl")
    space = SearchSpace.read(Path(__file__).parents[1] / "golden" / "space_v1.yaml")
    child = space.child(space.largest())
    assert Latency(table).estimate(child).value == pytest.approx(network_ms(child), rel=1e-6)


def test_summary_is_the_median_of_medians_and_their_half_range() -> None:
    summary = summarize([(1.0, 9.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 0.0)])
    assert summary == (2.0, (4.0 - 1.0) / 2 / 2.0)


def test_line_fit_minimizes_the_relative_error_and_never_falls() -> None:
    fit = fit_line([1, 2, 3, 4], [3, 5, 7, 9])
    assert fit.correction == pytest.approx((1, 2))
    assert fit.spread == pytest.approx(0, abs=1e-9)
    assert fit_line([1, 2, 3], [3, 2, 1]).correction == (0.0, 1.0)
