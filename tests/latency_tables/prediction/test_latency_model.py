from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.supernet.gates import one_hot_gates
from latency_tables.prediction import latency_model
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.table.rows import BlockRow, NetworkRow
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import OFFSET_MS, SCALE, network_ms, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "t.jsonl", SPACE)


def test_prediction_is_the_formula_that_made_the_table(path: Path) -> None:
    latency = Latency(LatencyModel(LatencyTable.read(path)))
    generator = random.Random(0)
    for _ in range(20):
        child = SPACE.child(SPACE.sample(generator))
        assert latency.estimate(child).value == pytest.approx(network_ms(child), rel=1e-6)
    offset, scale = latency.correction(32)
    assert offset == pytest.approx(OFFSET_MS, abs=1e-6)
    assert scale == pytest.approx(SCALE, rel=1e-6)


def test_expected_latency_at_one_hot_gates_is_the_estimate(path: Path) -> None:
    latency = Latency(LatencyModel(LatencyTable.read(path)))
    chain = latency.on(SPACE)
    generator = random.Random(1)
    for _ in range(20):
        choice = SPACE.sample(generator)
        expected = chain.expected(one_hot_gates(SPACE, choice, torch.float64)).item()
        assert expected == pytest.approx(latency.estimate(SPACE.child(choice)).value, rel=1e-12)
        assert chain.cost(choice) == pytest.approx(expected, rel=1e-12)


def test_a_missing_block_is_an_error_with_its_name(path: Path) -> None:
    other = SPACE.with_classes(7)
    with pytest.raises(DmaskError, match=r"no row for head 192->7 at 2x2|no row for head \d+->7 at 4x4"):
        Latency(LatencyModel(LatencyTable.read(path))).on(other)


def test_too_few_whole_networks(tmp_path: Path) -> None:
    model = LatencyModel(LatencyTable.read(write_table(tmp_path / "t.jsonl", SPACE, networks=2)))
    with pytest.raises(DmaskError, match=r"holds 2 whole networks to correct sums of blocks by, at least 3"):
        model.correction(32)


def test_golden_table_of_version_1_still_reads() -> None:
    table = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v1.jsonl")
    space = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
    child = space.child(space.largest())
    assert Latency(LatencyModel(table)).estimate(child).value == pytest.approx(network_ms(child), rel=1e-6)


def test_blocks_that_were_not_measured_are_predicted(tmp_path: Path) -> None:
    """Every third block of a formula that the predictor can learn."""
    space = load_space("mobilenet_small").with_classes(10)
    table = LatencyTable.read(write_table(tmp_path / "t.jsonl", space, networks=12, every=8))
    latency = Latency(LatencyModel(table))
    generator, errors = random.Random(0), []
    for _ in range(30):
        child = space.child(space.sample(generator))
        estimate = latency.estimate(child)
        assert estimate.num_predicted > 0
        assert estimate.num_measured + estimate.num_predicted == sum(b.kind != "skip" for b in child.blocks)
        errors.append(abs(estimate.value / network_ms(child) - 1))
    assert sum(errors) / 30 < 0.05


def test_a_block_that_was_only_measured_while_slowed_is_predicted_like_the_others(path: Path) -> None:
    """It seemed twice as slow as it is; the stem, of which there are too few to predict, is left as it was measured."""
    table = LatencyTable.read(path)
    subjects = [row.subject for row in table.rows if isinstance(row, BlockRow)]
    slowed = [next(s for s in subjects if s[0].kind == kind) for kind in ("inverted_residual", "conv")]
    rows = [
        row.model_copy(update={"slowed": True, "wall_ms": (2 * row.wall_ms[0],), "cpu_ms": (2 * row.wall_ms[0],)})
        if isinstance(row, BlockRow) and row.subject in slowed
        else row
        for row in table.rows
    ]
    before, model = LatencyModel(table), LatencyModel(LatencyTable(table.head, tuple(rows), "slowed"))
    block, stem = slowed
    assert not model.is_measured(*block)
    assert model.raw_ms(*block) == pytest.approx(before.raw_ms(*block), rel=0.25)
    assert model.spread_ms([block])[0] > 0
    assert model.raw_ms(*stem) == 2 * before.raw_ms(*stem)


def test_cost_tensors_are_made_once_and_kept(path: Path, tmp_path: Path) -> None:
    table = LatencyTable.read(path)
    model = LatencyModel(table)
    made = Latency(model, cache=tmp_path).on(SPACE)
    (kept,) = tmp_path.iterdir()
    assert kept.name == f"{model.prediction_digest}-{SPACE.digest()}.npz"
    empty = LatencyTable(table.head, tuple(r for r in table.rows if isinstance(r, NetworkRow)), table.source)
    empty.digest = table.digest  # by which its predictions are named
    bare = LatencyModel(empty)
    bare.corrections = model.corrections
    again = Latency(bare, cache=tmp_path).on(SPACE)  # it could not make them itself
    for first, second in zip(made.blocks, again.blocks, strict=True):
        assert (first.values == second.values).all()
    kept.write_bytes(b"damaged")
    assert Latency(model, cache=tmp_path).on(SPACE).cost(SPACE.largest()) == made.cost(SPACE.largest())


def corrupted(values: list[np.ndarray], how: str) -> list[np.ndarray]:
    first, *rest = values
    changed = first.copy()
    changed.flat[0] = {"nan": np.nan, "infinite": np.inf}.get(how, 0.0)
    by_name = {
        "nan": [changed, *rest],
        "infinite": [changed, *rest],
        "shape": [first[..., None], *rest],
        "transposed": [first, rest[0].T, *rest[1:]],
        "float32": [first.astype(np.float32), *rest],
        "integers": [np.ones_like(first, int), *rest],
        "fewer": rest,
    }
    return by_name[how]


@pytest.mark.parametrize("how", ["nan", "infinite", "shape", "transposed", "float32", "integers", "fewer"])
def test_cost_tensors_that_cannot_be_are_made_again(how: str, path: Path, tmp_path: Path) -> None:
    model = LatencyModel(LatencyTable.read(path))
    made = Latency(model, cache=tmp_path).on(SPACE)
    (kept,) = tmp_path.iterdir()
    np.savez_compressed(kept, *corrupted([block.values for block in made.blocks], how))
    again = Latency(model, cache=tmp_path).on(SPACE)
    for first, second in zip(made.blocks, again.blocks, strict=True):
        assert second.values.dtype == np.float64
        assert np.array_equal(first.values, second.values)


@pytest.mark.parametrize("length", [0, 10, 100, -1, -30])
def test_cost_tensors_that_are_cut_off_are_made_again(length: int, path: Path, tmp_path: Path) -> None:
    model = LatencyModel(LatencyTable.read(path))
    made = Latency(model, cache=tmp_path).on(SPACE)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:length])
    assert Latency(model, cache=tmp_path).on(SPACE).digest() == made.digest()


def test_cost_tensors_of_other_code_are_not_taken(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Latency(LatencyModel(LatencyTable.read(path)), cache=tmp_path).on(SPACE)
    monkeypatch.setattr(latency_model, "source_digest", lambda *places: "of changed code")
    Latency(LatencyModel(LatencyTable.read(path)), cache=tmp_path).on(SPACE)
    assert len(list(tmp_path.glob("*.npz"))) == 2


@pytest.mark.parametrize(("block_ms", "child_ms"), [(1e7, 1e-6), (1e-6, 1e7)])
def test_a_network_far_from_the_sum_of_its_blocks_is_refused(block_ms: float, child_ms: float, path: Path) -> None:
    table = LatencyTable.read(path)
    rows = [
        row.model_copy(update={"wall_ms": (child_ms if isinstance(row, NetworkRow) else block_ms,)})
        for row in table.rows
    ]
    model = LatencyModel(LatencyTable(table.head, tuple(rows), "odd"))
    with pytest.raises(DmaskError, match=r"'odd': network demo-0 at 32 px took .* ms, its blocks alone .* is wrong"):
        model.relative_spread()
