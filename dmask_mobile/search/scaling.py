"""The largest child of a space, scaled uniformly: what a person would try without a search."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.near_budget import tightest_share

Way = Literal["widths", "depth", "resolution"]
WAYS: dict[Way, tuple[str, ...]] = {
    "widths": ("width", "expansion", "hidden_width"),
    "depth": ("width", "expansion", "hidden_width", "skip"),
    "resolution": ("width", "expansion", "hidden_width"),
}
"""The kinds of decisions that each way scales by one factor; whoever scales the resolution chooses it beside them."""
Scaled = tuple[int, ...]
"""The number of a decision that is scaled, or those of the decisions that skip a stage's blocks."""
SMALLEST, NUM_SCALES = 0.05, 80


def scales() -> list[float]:
    """The factors that are tried, the smallest one first."""
    return [float(scale) for scale in np.geomspace(SMALLEST, 1, NUM_SCALES)]


def scaled_child(space: SearchSpace, way: Way, scale: float, up: Collection[Scaled] | None = None) -> Choice:
    """The largest child, with the options of the kinds that ``way`` scales ``scale`` times as large.

    Args:
        space: the space.
        way: a key of `WAYS`. Depth is the number of blocks in each stage that may be skipped and are not.
        scale: 0 to 1.
        up: the values between two options that become the larger one; None rounds each.
    """
    places = scaled_places(space, way, scale)
    if up is None:
        up = {decisions for decisions, place in places.items() if place % 1 > 0.5}
    indices = list(space.largest().indices)
    for decisions, place in places.items():
        index = int(place) + (decisions in up and place > int(place))
        for number, decision in enumerate(decisions):
            indices[decision] = index if space.decisions[decision].kind != "skip" else int(number >= index)
    return Choice(indices=tuple(indices))


def scaled_places(space: SearchSpace, way: Way, scale: float) -> dict[Scaled, float]:
    """The places of scaled values among the options of each decision, and how many blocks of a stage are kept."""
    places: dict[Scaled, float] = {}
    stages: dict[str, Scaled] = {}
    for number, decision in enumerate(space.decisions):
        if decision.kind == "skip" and "skip" in WAYS[way]:
            stage = decision.name.split(".")[0]
            stages[stage] = (*stages.get(stage, ()), number)
        elif decision.kind in WAYS[way] and len(decision.options) > 1:
            wanted = scale * decision.options[-1]
            places[number,] = float(np.interp(wanted, decision.options, range(len(decision.options))))
    return places | {skips: scale * len(skips) for skips in stages.values()}


def scaled_within(space: SearchSpace, budgets: Sequence[Budget]) -> Choice | None:
    """The largest child, scaled in widths and depth until it just fits the budgets; None if no scale is small enough.

    Of the values between two options, those nearest to the larger one become it, as many as fit.
    """
    children: dict[Choice, None] = {}
    for scale in scales():
        places = scaled_places(space, "depth", scale)
        between = sorted((each for each in places if places[each] % 1), key=lambda each: -(places[each] % 1))
        for count in range(len(between) + 1):
            children[scaled_child(space, "depth", scale, between[:count])] = None
    fitting = [(share, child) for child in children if (share := tightest_share(budgets, child)) <= 1]
    return max(fitting, key=lambda found: found[0], default=(0.0, None))[1]
