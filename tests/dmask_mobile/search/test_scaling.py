from __future__ import annotations

import pytest

from dmask_mobile.api import cost_model, load_space
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.near_budget import tightest_share
from dmask_mobile.search.scaling import between_options, scaled_child, scaled_places, scaled_within, scales

SPACE = load_space("mobilenet_small").with_classes(10)


def budgets(**shares: float) -> list[Budget]:
    """Budgets at these shares of the largest child's costs."""
    costs = {name: cost_model(name, []).on(SPACE) for name in shares}
    return [Budget(cost, shares[name] * cost.cost(SPACE.largest())) for name, cost in costs.items()]


def test_half_of_every_width_and_of_the_blocks_that_may_be_skipped() -> None:
    places = scaled_places(SPACE, "depth", 0.5)
    even = [each for each in between_options(places) if places[each] % 1 > 0.5]
    decided = dict(zip((d.name for d in SPACE.decisions), scaled_child(SPACE, places, even).indices, strict=True))
    stage3 = next(d for d in SPACE.decisions if d.name == "stage3.width")
    assert stage3.options[decided["stage3.width"]] == pytest.approx(28, abs=4)  # of 56, in steps of 8
    assert [decided[f"stage3.block{block}.skip"] for block in (2, 3)] == [0, 1]


@pytest.mark.parametrize("shares", [{"macs": 0.1}, {"macs": 0.5}, {"params": 0.3}, {"macs": 0.5, "params": 0.2}])
def test_the_scaled_child_is_the_largest_that_fits_all_budgets(shares: dict[str, float]) -> None:
    limits = budgets(**shares)
    found = scaled_within(SPACE, limits)
    assert found is not None
    assert tightest_share(limits, found) <= 1
    largest = SPACE.largest()
    scaled = {"width", "expansion", "skip"}
    assert all(found[i] == largest[i] for i, decision in enumerate(SPACE.decisions) if decision.kind not in scaled)
    rounded_down = [scaled_child(SPACE, scaled_places(SPACE, "depth", scale), ()) for scale in scales()]
    assert tightest_share(limits, found) >= max(
        share for child in rounded_down if (share := tightest_share(limits, child)) <= 1
    )


def test_everything_fits_a_large_budget_and_nothing_one_below_the_smallest_scale() -> None:
    assert scaled_within(SPACE, budgets(macs=1.0)) == SPACE.largest()
    smallest = scaled_child(SPACE, scaled_places(SPACE, "depth", 0.0), ())
    (cost, _), *_ = budgets(macs=1.0)
    assert scaled_within(SPACE, [Budget(cost, 0.9 * cost.cost(smallest))]) is None
