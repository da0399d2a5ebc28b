"""Judging tables: figures by hand, and one evaluation for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from latency_tables.profiling.evaluate import MeasuredChild, evaluate, judge, repeatability, unseen_children
from latency_tables.profiling.plots import plot_evaluation, plot_table
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import write_table
from tests.latency_tables.profiling.test_profile import setup

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
CHILD = SPACE.child(SPACE.smallest())


def measured(predicted: float, passes: tuple[float, float], resolution: int = 32, spread: float = 1.0) -> MeasuredChild:
    child = CHILD.model_copy(update={"resolution": resolution})
    return MeasuredChild(
        child=child,
        predicted_ms=predicted,
        spread_ms=spread,
        sum_ms=2 * predicted,
        line_ms=predicted,
        passes_ms=passes,
        drift=(0.0, 0.25),
    )


def test_figures_by_hand() -> None:
    found = judge(
        [
            measured(10.0, (10.0, 10.0)),
            measured(10.4, (10.5, 9.5)),  # +4%
            measured(21.6, (20.0, 20.0), spread=1.0),  # +8%; 1.6 away, its interval reaches 1.28
            measured(25.5, (30.0, 30.0), spread=4.0),  # -15%; 4.5 away, its interval reaches 5.1
        ]
    )
    assert found.mape == pytest.approx((0 + 0.04 + 0.08 + 0.15) / 4)
    assert (found.within_5, found.within_10) == (0.5, 0.75)
    assert found.coverage_80 == 0.75
    assert found.repeatability_mape == pytest.approx((0 + 1 / 10.5 + 0 + 0) / 4 / 2)
    assert found.mape_sum == pytest.approx((1 + 1.08 + 1.16 + 0.7) / 4)
    assert found.drift == 0.125
    assert found.children[0].error_without_drift == pytest.approx(10 / 9 - 1)  # 10 and 10 / 1.25
    assert found.kendall_tau == pytest.approx(kendalltau([10, 10.4, 21.6, 25.5], [10, 10, 20, 30]).statistic)
    assert [round(child.error, 2) for child in found.worst()[:2]] == [-0.15, 0.08]


def test_repeatability_is_the_error_of_a_perfect_table() -> None:
    """Passes of a known latency with a noise of 3%, and a table that predicts that very latency."""
    random = np.random.default_rng(0)
    true_ms = random.uniform(1, 100, 100_000)
    passes_ms = true_ms[:, None] * (1 + 0.03 * random.standard_normal((len(true_ms), 2)))
    perfect = float(np.abs(true_ms / passes_ms.mean(1) - 1).mean())
    assert perfect == pytest.approx(0.03 / np.sqrt(2) * np.sqrt(2 / np.pi), rel=0.01)  # mean of two, normal
    assert repeatability(passes_ms) == pytest.approx(perfect, rel=0.01)


def test_without_children_there_is_nothing_to_judge(tmp_path: Path) -> None:
    table = LatencyTable.read(write_table(tmp_path / "t.jsonl", SPACE))
    with pytest.raises(DmaskError, match="no children to evaluate the table on; the space has none"):
        evaluate(table, [])


def test_near_pairs_are_those_of_one_resolution_within_20_percent() -> None:
    children = [
        measured(10.0, (10.0, 10.0)),
        measured(11.5, (11.0, 11.0)),  # near the first, right order
        measured(11.0, (12.5, 12.5)),  # near the second, wrong order; not near the first
        measured(1.0, (11.2, 11.2), resolution=64),  # of another resolution
    ]
    assert judge(children).kendall_tau_near == 0  # one pair right, one wrong


@pytest.mark.slow
def test_a_table_is_judged_on_this_machine_by_children_that_it_never_saw(tmp_path: Path) -> None:
    settings = ProfileSettings(rounds=2, network_rounds=2, seconds_per_block=0.002, seconds_per_network=0.01)
    table = profile_space(SPACE, setup(), settings, tmp_path / "t.jsonl")
    children = unseen_children(table, SPACE, 6, seed=1)
    assert not {(c.resolution, c.blocks) for c in children} & {(c.resolution, c.blocks) for c in table.networks}
    assert [c.digest() for c in children] == [c.digest() for c in unseen_children(table, SPACE, 6, seed=1)]
    found = evaluate(table, children)
    assert found.num_children == len(children)
    assert 0 <= found.within_5 <= found.within_10 <= 1
    assert all(len(child.passes_ms) == 2 and child.measured_ms > 0 for child in found.children)
    plot_evaluation(found, tmp_path / "evaluation.png")
    plot_table(table, tmp_path / "table.png")
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("evaluation", "table"))
