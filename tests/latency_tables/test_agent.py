"""Sampling, with runs whose times are known."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from latency_tables import agent


def taking(monkeypatch: pytest.MonkeyPatch, times_ms: Callable[[int], float]) -> Callable[[], None]:
    """A run whose n-th call takes ``times_ms(n)`` on a clock that nothing else moves."""
    now, numbers = [0.0], itertools.count()

    def run() -> None:
        now[0] += times_ms(next(numbers)) / 1e3

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(now[0] * 1e9))
    return run


def test_steady_runs_are_timed_for_the_time_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: 1.0), 0.02)
    assert found["wall_ms"] == [1.0] * 20
    assert len(found["cpu_ms"]) == 20


@pytest.mark.parametrize(("ms", "count"), [(0.01, agent.MAX_SAMPLES), (1000.0, agent.MIN_SAMPLES)])
def test_quick_and_slow_models_have_their_limits(ms: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.sample(taking(monkeypatch, lambda n: ms), 0.02)["wall_ms"] == [ms] * count


def test_warm_up_lasts_until_three_runs_are_as_long_as_the_three_before(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: max(1.0, 10.0 - n)), 1.0)
    assert found["wall_ms"][0] == 1.0


def test_an_unsteady_model_is_timed_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: 1.0 + n % 3), 0.02)
    assert 38 <= len(found["wall_ms"]) <= 42  # four times 20 ms at 2 ms on average


def test_error_of_the_median_by_hand() -> None:
    # deviations 2, 1, 0, 1, 2: their median is 1
    assert agent.median_error([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(1.2533 * 1.4826 / 5**0.5 / 10)
