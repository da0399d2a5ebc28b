"""Judging tables: figures by hand, and one evaluation for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from latency_tables.profiling.evaluate import (
    PASSES,
    Pass,
    check_quiet,
    check_repeatable,
    evaluate,
    steadier,
    unseen_children,
)
from latency_tables.profiling.judging import MeasuredChild, bootstrap_interval, inside_widened_80, judge, repeatability
from latency_tables.profiling.plots import plot_evaluation, plot_table
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import write_table
from tests.latency_tables.profiling.test_profile import setup

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
CHILD = SPACE.child(SPACE.smallest())


def measured(
    predicted: float, passes: tuple[float, ...], resolution: int = 32, spread: float = 1.0, drift: float = 0.0
) -> MeasuredChild:
    child = CHILD.model_copy(update={"resolution": resolution})
    return MeasuredChild(
        child=child,
        predicted_ms=predicted,
        spread_ms=spread,
        sum_ms=2 * predicted,
        line_ms=predicted,
        passes_ms=passes,
        drift=(drift,) * len(passes),
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
    assert found.coverage_80_widened == 0.75
    assert found.repeatability_mape == pytest.approx((0 + 1 / 10 + 0 + 0) / 4 / 2)
    assert found.mape_sum == pytest.approx((1 + 1.08 + 1.16 + 0.7) / 4)
    assert (found.drift, found.num_passes) == (0.0, 2)
    assert found.kendall_tau == pytest.approx(kendalltau([10, 10.4, 21.6, 25.5], [10, 10, 20, 30]).statistic)
    assert [round(child.error, 2) for child in found.worst()[:2]] == [-0.15, 0.08]


def test_predictions_are_scaled_to_the_device_as_it_is_now() -> None:
    """It has become 25% slower; the table is right but for that."""
    found = judge([measured(ms, (1.25 * ms, 1.25 * ms), drift=0.25) for ms in (4.0, 8.0, 10.0)])
    assert (found.drift, found.mape) == (0.25, 0.0)
    assert found.mape_unscaled == pytest.approx(0.2)
    assert found.mape_line == 0.0
    assert [child.predicted_ms for child in found.judged()] == [5.0, 10.0, 12.5]


@pytest.mark.parametrize(("spread", "noise"), [(0.02, 0.0), (0.02, 0.04), (0.0, 0.04), (0.01, 0.08)])
def test_honest_intervals_hold_80_percent_whatever_the_noise_of_the_measurements(spread: float, noise: float) -> None:
    """Predictions that are off by what they state, judged by four noisy passes."""
    random, count = np.random.default_rng(0), 4_000
    true_ms = random.uniform(1, 100, count)
    predicted_ms = true_ms * (1 + spread * random.standard_normal(count))
    passes_ms = true_ms[:, None] * (1 + noise * random.standard_normal((count, 4)))
    assert inside_widened_80(predicted_ms, spread * true_ms, passes_ms).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("passes", [2, 4, 6])
def test_repeatability_is_the_error_of_a_perfect_table(passes: int) -> None:
    """Passes of a known latency with a noise of 3%, and a table that predicts that very latency."""
    random = np.random.default_rng(0)
    true_ms = random.uniform(1, 100, 50_000)
    passes_ms = true_ms[:, None] * (1 + 0.03 * random.standard_normal((len(true_ms), passes)))
    perfect = float(np.abs(true_ms / passes_ms.mean(1) - 1).mean())
    assert perfect == pytest.approx(0.03 / np.sqrt(passes) * np.sqrt(2 / np.pi), rel=0.01)  # mean of n, normal
    assert repeatability(passes_ms) == pytest.approx(perfect, rel=0.01)


def test_intervals_hold_the_true_figure() -> None:
    """Errors that are normal with 3%: their mean is 3% * sqrt(2 / pi), in 95 of 100 intervals."""
    random, mean, held = np.random.default_rng(0), 0.03 * np.sqrt(2 / np.pi), 0
    for _ in range(100):
        errors = np.abs(0.03 * random.standard_normal(60))
        low, high = bootstrap_interval(lambda chosen, errors=errors: float(errors[chosen].mean()), 60, seed=1)
        held += low <= mean <= high
    assert 88 <= held <= 99
    assert bootstrap_interval(lambda chosen: None, 60, seed=1) is None


def test_drift_is_taken_out_of_passes_only_where_they_then_repeat_better() -> None:
    times, speeds = np.array([[1.0], [2.0], [5.0]]), np.array([[0.0, 0.2, 0.0, 0.2]])
    drifts = np.repeat(speeds, 3, axis=0)
    found = steadier(times * (1 + speeds), drifts)
    assert found == pytest.approx(times * (1 + np.median(speeds)) * np.ones(4))
    steady = times * np.ones(4)
    assert steadier(steady, drifts) is steady  # what the sentinels showed did not concern these networks


def test_a_device_that_is_too_busy_gets_no_figures() -> None:
    quiet, interrupted = Pass(1.0, 0.0, interrupted=False), Pass(1.0, 0.0, interrupted=True)
    check_quiet([quiet, interrupted])
    with pytest.raises(DmaskError, match=r"too busy to judge a table: other programs ran .* during 67% of the rounds"):
        check_quiet([quiet, interrupted, interrupted])
    check_repeatable(np.array([[1.0, 1.1], [2.0, 2.0]]))
    with pytest.raises(DmaskError, match=r"too busy to judge.*even a perfect table would be 11.8% off \(at most 5%\)"):
        check_repeatable(np.array([[1.0, 1.5], [2.0, 2.15]]))  # 20% and 3.6%


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
    settings = ProfileSettings(
        rounds=2, network_rounds=2, seconds_per_block=0.002, seconds_per_network=0.01, metric_networks=0
    )
    table = profile_space(SPACE, setup(), settings, tmp_path / "t.jsonl")
    children = unseen_children(table, SPACE, 6, seed=1)
    assert not {(c.resolution, c.blocks) for c in children} & {(c.resolution, c.blocks) for c in table.networks}
    assert [c.digest() for c in children] == [c.digest() for c in unseen_children(table, SPACE, 6, seed=1)]
    found = evaluate(table, children)
    assert found.num_children == len(children)
    assert 0 <= found.within_5 <= found.within_10 <= 1
    assert all(len(child.passes_ms) == PASSES and child.measured_ms > 0 for child in found.children)
    plot_evaluation(found, tmp_path / "evaluation.png")
    plot_table(table, tmp_path / "table.png")
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("evaluation", "table"))
