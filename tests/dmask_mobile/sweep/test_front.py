from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmask_mobile.records.sweep import FailedRun
from dmask_mobile.records.verification import Verification, line_of
from dmask_mobile.run import RunFolder
from dmask_mobile.sweep.design import planned_runs
from dmask_mobile.sweep.front import front_of, sweep_record
from tests.dmask_mobile.sweep.design import DESIGN, finished_sweep

UNITS = {"macs": "macs"}
numbers = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(st.tuples(numbers, numbers), numbers)))
def test_each_point_off_the_front_is_beaten_by_one_on_it_and_none_on_it_is(
    points: list[tuple[tuple[float, ...], float]],
) -> None:
    def beats(a: tuple[tuple[float, ...], float], b: tuple[tuple[float, ...], float]) -> bool:
        return a != b and a[0][0] <= b[0][0] and a[0][1] <= b[0][1] and a[1] >= b[1]

    front = [point for point, on in zip(points, front_of(points), strict=True) if on]
    assert all(any(beats(a, point) for a in front) for point in points if point not in front)
    assert not any(beats(a, b) for a in points for b in front)


def test_points_mean_and_spread_by_budget(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path, [(90e3, 0.5), (140e3, 0.7), (98e3, 0.6)])
    failed = [FailedRun(run="runs/macs-150000-seed-1", reason="search ended with status 2")]
    record = sweep_record(DESIGN, folder, UNITS, failed)
    assert [(p.run, p.seed, p.costs["macs"], p.accuracy, p.on_front) for p in record.points] == [
        ("runs/macs-100000-seed-0", 0, 90e3, 0.5, True),
        ("runs/macs-150000-seed-0", 0, 140e3, 0.7, True),
        ("runs/macs-100000-seed-1", 1, 98e3, 0.6, True),
    ]
    small, large = record.summaries
    assert (small.num_seeds, small.accuracy_mean, small.cost_means) == (2, pytest.approx(0.55), {"macs": 94e3})
    assert small.accuracy_deviation == pytest.approx(0.1 / math.sqrt(2))  # of two values: their distance / sqrt(2)
    assert small.cost_deviations == {"macs": pytest.approx(8e3 / math.sqrt(2))}
    assert (large.num_seeds, large.accuracy_deviation, large.cost_deviations) == (1, None, None)
    assert (record.num_runs, record.failed) == (4, tuple(failed))


def test_a_front_of_measured_costs_needs_all_of_them(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path, [(90e3, 0.5), (80e3, 0.4)])

    def measure(number: int, *values: float) -> None:
        run = RunFolder(folder.run_path(planned_runs(DESIGN)[number]))
        lines = [line_of("a", "macs budget", "macs", 1.0, value, "", "passed") for value in values]
        Verification(child_digest=run.child().digest(), created="", checks=tuple(lines)).write(run.verification_path)

    measure(0, 95e3, 97e3)
    one = sweep_record(DESIGN, folder, UNITS)
    assert (one.measured_costs, [one.cost_of(p, "macs") for p in one.points]) == ((), [90e3, 80e3])
    measure(1, 99e3)
    both = sweep_record(DESIGN, folder, UNITS)
    assert (both.measured_costs, [both.cost_of(p, "macs") for p in both.points]) == (("macs",), [97e3, 99e3])
    assert [p.on_front for p in both.points] == [True, False]
