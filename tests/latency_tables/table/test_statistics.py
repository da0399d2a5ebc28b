from __future__ import annotations

from latency_tables.table.statistics import smooth, summarize


def test_summary_is_the_median_of_medians_and_their_half_range() -> None:
    summary = summarize([(1.0, 9.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 0.0)])
    assert summary == (2.0, (4.0 - 1.0) / 2 / 2.0)


def test_summary_takes_drift_off() -> None:
    assert summarize([(2.0,), (3.0,)], [1.0, 1.5]) == (2.0, 0.0)


def test_smoothing_drops_a_single_peak() -> None:
    assert smooth([1, 1, 9, 1, 1]).tolist() == [1, 1, 1, 1, 1]
    assert smooth([1, 2, 3]).tolist() == [1, 2, 3]
    assert smooth([4]).tolist() == [4]
