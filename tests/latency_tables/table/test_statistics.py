from __future__ import annotations

import pytest

from latency_tables.table.statistics import best_quantile, round_time, smooth, summarize, usual_share


def test_summary_is_the_median_of_rounds_and_their_half_range() -> None:
    assert summarize([1.0, 2.0, 4.0]) == (2.0, (4.0 - 1.0) / 2 / 2.0, False)


def test_summary_takes_drift_off() -> None:
    assert summarize([2.0, 3.0], [1.0, 1.5]) == (2.0, 0.0, False)


def test_smoothing_drops_a_single_peak() -> None:
    assert smooth([1, 1, 9, 1, 1]).tolist() == [1, 1, 1, 1, 1]
    assert smooth([1, 2, 3]).tolist() == [1, 2, 3]
    assert smooth([4]).tolist() == [4]


def test_interrupted_runs_do_not_count() -> None:
    """Two of five runs waited for another program: their wall time is longer than the thread's CPU time."""
    wall, cpu = (1.0, 3.0, 1.2, 5.0, 1.1), (1.0, 1.0, 1.2, 1.0, 1.1)
    assert round_time(wall, cpu, usual=1.0) == (1.1, False)
    assert round_time(wall, cpu, usual=None) == (1.2, False)  # a thread that waits for a GPU says nothing
    assert round_time(wall, (), usual=1.0) == (1.2, False)


def test_a_round_that_was_interrupted_all_the_time_counts_by_its_cpu_time() -> None:
    assert round_time((3.0, 3.2, 3.4), (1.0, 1.1, 1.2), usual=1.0) == (1.1, True)
    assert round_time((3.0, 3.2, 3.4), (0.9, 0.99, 1.1), usual=0.99) == pytest.approx((1.0, True))


def test_quantiles_are_those_of_numpy() -> None:
    assert round_time((1.0, 2.0, 4.0, 8.0), (), None, quantile=0.25).ms == 1.75
    assert round_time((4.0,), (), None, quantile=0.25).ms == 4.0


@pytest.mark.parametrize(
    ("rounds", "share"),
    [
        ([((1.0, 4.0), (1.0, 1.0))] * 9, 1.0),  # every other run was interrupted
        ([((1.0, 1.0), (0.1, 0.2))] * 9, None),  # a GPU computes
        ([((1.0, 1.0), (0.0, 10.0))] * 9, None),  # a clock that ticks every 10 ms
        ([((1.0,), ())], None),
    ],
)
def test_usual_share_of_cpu_time(
    rounds: list[tuple[tuple[float, ...], tuple[float, ...]]], share: float | None
) -> None:
    assert usual_share(rounds) == share


def test_the_quantile_that_repeats_best_is_taken() -> None:
    assert best_quantile([]) == 0.5
    assert best_quantile([{0.5: 1.10, 0.25: 1.02}, {0.5: 0.95, 0.25: 0.99}]) == 0.25
    assert best_quantile([{0.5: 1.10, 0.25: 1.095}]) == 0.5  # hardly better
