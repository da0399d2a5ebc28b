from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_tables.prediction.correction import (
    FORMS,
    Context,
    Part,
    WholeNetwork,
    common_line,
    fit_corrections,
    predicted_by_others,
)

NO_CONTEXT = Context()


def networks(
    offset: float, scale: float, context: Context = NO_CONTEXT, noise: float = 0.0, seed: int = 0
) -> list[WholeNetwork]:
    """24 networks at three resolutions that follow `latency_tables.prediction.correction` exactly, or noisily."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(24):
        resolution, count = (128, 160, 224)[number % 3], int(random.integers(8, 20))
        parts = tuple(Part(*values) for values in random.uniform([0.5, 0.01, 0.01], [2.0, 0.5, 2.0], (count, 3)))
        latency = offset + scale * sum(context.of(part) for part in parts)
        found.append(WholeNetwork(resolution, parts, latency * float(np.exp(noise * random.normal()))))
    return found


@pytest.mark.slow
@given(st.floats(0, 0.5), st.floats(0.5, 1.5), st.floats(0, 0.05), st.floats(0, 0.2), st.floats(0, 0.1))
def test_exact_networks_give_the_formula_back(
    offset: float, scale: float, call: float, moved: float, weights: float
) -> None:
    fitted = fit_corrections(networks(offset, scale, Context(call, moved, weights)))
    assert fitted.context == pytest.approx((call, moved, weights), abs=1e-4)
    for resolution in (128, 160, 224):
        assert fitted.at(resolution) == pytest.approx((offset, scale), abs=2e-3)
    assert fitted.error < 1e-3


def test_spread_and_error_are_those_of_networks_left_out() -> None:
    context = Context(0.01, 0.1, 0.02)
    fitted = fit_corrections(networks(0.1, 0.9, context, noise=0.03))
    assert 0.02 < fitted.spread < 0.06
    assert 0.015 < fitted.error < fitted.spread
    fresh = [fitted.apply(n) / n.measured_ms - 1 for n in networks(0.1, 0.9, context, noise=0.03, seed=1)]
    assert np.mean(np.abs(fresh)) < 1.6 * fitted.error


def test_a_resolution_with_few_networks_stays_near_the_common_line() -> None:
    many = networks(0.1, 0.9)
    odd = WholeNetwork(96, (Part(1.0, 0.1, 0.1),) * 10, 20.0)  # one network that is twice as slow as all others
    line = fit_corrections([*many, odd]).at(96)
    assert 9.1 < line.apply(10.0) < 16
    assert fit_corrections(many).at(96) == fit_corrections(many).common  # a resolution that was never measured


@pytest.mark.parametrize("seed", range(5))
def test_few_networks_of_many_resolutions_do_not_get_a_line_each(seed: int) -> None:
    """Two or three networks of each of seven resolutions, all on one line with a noise of 3%."""
    spread = [
        network._replace(resolution=112 + 16 * (number % 7))
        for number, network in enumerate(networks(0.1, 0.9, Context(0.01, 0.1, 0.02), noise=0.03, seed=seed))
    ]
    fitted = fit_corrections(spread[:16])
    fresh = [n._replace(resolution=112) for n in networks(0.1, 0.9, Context(0.01, 0.1, 0.02), seed=seed + 10)]
    assert fitted.form.lines != "by resolution"
    assert np.mean([abs(fitted.apply(n) / n.measured_ms - 1) for n in fresh]) < 0.04


def test_resolutions_that_differ_clearly_get_a_line_each() -> None:
    found = [
        n._replace(measured_ms=n.measured_ms * {128: 0.7, 160: 1.0, 224: 1.3}[n.resolution])
        for n in networks(0.1, 0.9, noise=0.01)
    ]
    fitted = fit_corrections(found)
    assert fitted.form.lines == "by resolution"
    assert fitted.at(224).apply(10.0) > 1.3 * fitted.at(128).apply(10.0)


def test_fewer_than_three_networks_say_nothing_of_their_error() -> None:
    assert fit_corrections(networks(0.1, 0.9)[:2]).error == np.inf


def test_a_block_keeps_a_fifth_of_what_it_took_alone() -> None:
    parts = (Part(1.0, 0.0, 0.0), Part(0.1, 0.0, 0.0))
    assert WholeNetwork(32, parts, 1.0).sum_in(Context(call_ms=0.5)) == pytest.approx(0.5 + 0.02)


def test_a_line_never_falls() -> None:
    falling = [WholeNetwork(32, (Part(total / 5, 0.1, 0.1),) * 5, 10 - total) for total in (1.0, 2.0, 3.0, 4.0)]
    assert common_line(falling).scale > 0
    assert all(line.scale > 0 for line in fit_corrections(falling).lines.values())


@pytest.mark.parametrize("factor", [1.3, 3.0])
def test_disturbed_networks_do_not_draw_the_correction(factor: float) -> None:
    """A quarter of the networks was measured beside other work."""
    context = Context(0.01, 0.1, 0.02)
    clean = networks(0.1, 0.9, context, noise=0.01)
    disturbed = [n._replace(measured_ms=n.measured_ms * (factor if i % 4 == 3 else 1)) for i, n in enumerate(clean)]
    fitted = fit_corrections(disturbed)
    fresh = networks(0.1, 0.9, context, seed=1)
    assert np.mean([abs(fitted.apply(n) / n.measured_ms - 1) for n in fresh]) < 0.05


def test_networks_that_are_their_sum_get_no_correction() -> None:
    """Latencies that scatter by 30% around the sum: whatever is fitted to them is worse on others than the sum."""
    found = networks(0.0, 1.0, noise=0.3)
    fitted = fit_corrections(found)
    assert fitted.form in FORMS[3:]
    assert fitted.error <= 1.05 * np.mean([abs(n.sum_ms / n.measured_ms - 1) for n in found])
    errors = [abs(ms / n.measured_ms - 1) for ms, n in zip(predicted_by_others(found), found, strict=True)]
    assert fitted.error == pytest.approx(np.mean(errors))
