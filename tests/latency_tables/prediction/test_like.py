"""A table of a new device from another device's table and a few blocks: both devices follow known formulas."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from dmask_mobile.costs.latency import Latency
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import load_space
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.prediction.like import MIN_FITTED, fit_like
from latency_tables.prediction.predictor import work
from latency_tables.profiling.plan import blocks_of, few_networks_of, networks_of, spread_networks_of
from latency_tables.table.rows import BlockAt, BlockRow, NetworkRow, PriorRow
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import AT, local_head

SPACE = load_space("mobilenet_small").with_classes(10)
BLOCKS = blocks_of(SPACE)


def old_ms(located: BlockAt) -> float:
    """The prior's device is slow at kernels of 5 and at widths that are no multiples of 16."""
    block, _ = located
    shape = (1.5 if block.kernel == 5 else 1.0) * (1.3 if block.hidden_width % 16 else 1.0)
    return shape * float(np.dot(work(*located), [0.01, 0.1, 0.4, 0.2, 0.05, 0.05, 0.05, 0.05, 0.1]))


def new_ms(located: BlockAt) -> float:
    """The new one has the same habits, half the speed, and pays more for memory."""
    return 2.0 * old_ms(located) + float(np.dot(work(*located), [0.02, 0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0]))


def network_ms(child: ChildSpec) -> float:
    return 0.1 + 0.9 * sum(new_ms(at) for at in child.located_blocks() if at[0].kind != "skip")


def table(num_blocks: int) -> LatencyTable:
    """A third of the blocks on the old device, ``num_blocks`` blocks and ten networks on the new one."""
    generator = random.Random(0)
    rare = [at for at in BLOCKS if at[0].kind != "inverted_residual"]
    prior = [*rare, *generator.sample(BLOCKS, len(BLOCKS) // 3)]
    measured = generator.sample([at for at in BLOCKS if at[0].kind == "inverted_residual"], num_blocks)
    common = {"round": 0, "at": AT, "cpu_ms": ()}
    rows = (
        *(PriorRow(block=at[0], in_size=at[1], ms=old_ms(at)) for at in prior),
        *(BlockRow(block=at[0], in_size=at[1], wall_ms=(new_ms(at),), **common) for at in [*measured, prior[0]]),
        *(NetworkRow(child=c, wall_ms=(network_ms(c),), **common) for c in few_networks_of(networks_of(SPACE))),
    )
    return LatencyTable(local_head().model_copy(update={"prior": "0" * 16}), rows, "t")


@pytest.mark.parametrize(("num_blocks", "limit"), [(40, 0.02), (5, 0.06)])
def test_some_tens_of_blocks_turn_another_table_into_that_of_a_new_device(num_blocks: int, limit: float) -> None:
    latency, generator = Latency(LatencyModel(table(num_blocks))), random.Random(1)
    children = [SPACE.child(SPACE.sample(generator)) for _ in range(30)]
    errors = [abs(latency.estimate(child).value / network_ms(child) - 1) for child in children]
    assert np.mean(errors) < limit


def test_few_networks_span_the_resolutions() -> None:
    found = few_networks_of(networks_of(SPACE))
    assert len(set(found)) == 10
    counts = [sum(child.resolution == size for child in found) for size in SPACE.input.resolutions]
    assert max(counts) - min(counts) <= 1


def test_the_first_of_few_networks_are_like_children_and_those_for_metrics_span_the_sizes() -> None:
    networks, sizes = networks_of(SPACE), SPACE.input.resolutions
    extreme = {SPACE.smallest().indices[1:], SPACE.largest().indices[1:]}
    corners = {SPACE.child(Choice(indices=(n, *rest)), "").digest() for n in range(len(sizes)) for rest in extreme}
    like, spread = few_networks_of(networks), spread_networks_of(networks)
    assert not corners & {child.digest() for child in like[: 2 * len(sizes)]}
    assert len(set(spread)) == 10
    assert corners <= {child.digest() for child in spread}


def test_kinds_of_which_nothing_was_measured_are_scaled_by_the_ratio_of_the_others() -> None:
    kinds = {at[0].kind: at for at in BLOCKS}
    prior = {at: old_ms(at) for at in BLOCKS[:200]} | {at: old_ms(at) for at in kinds.values()}
    measured = {at: 3.0 * old_ms(at) for at in BLOCKS[:MIN_FITTED] if at[0].kind != "head"}
    (predicted,) = fit_like(prior, measured)["head"].predict([kinds["head"]])
    assert predicted.ms == pytest.approx(3.0 * old_ms(kinds["head"]))
    assert fit_like(prior, {}) == {}


def test_golden_tables_have_no_prior() -> None:
    read = LatencyTable.read(Path(__file__).parents[2] / "golden" / "table_v2.jsonl")
    assert (read.prior, read.head.prior) == ({}, "")
