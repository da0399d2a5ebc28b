"""The largest child of a space, scaled uniformly: what a person would try without a search."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
TRIED_SCALES = 40  # that fit the budgets


def scales() -> list[float]:
    """The factors that are tried, the smallest one first."""
    return [float(scale) for scale in np.geomspace(SMALLEST, 1, NUM_SCALES)]


def scaled_places(space: SearchSpace, way: Way, scale: float) -> dict[Scaled, float]:
    """The places of scaled values among the options of each decision, and how many blocks of a stage are kept.

    Args:
        space: the space.
        way: a key of `WAYS`. Depth is the number of blocks in each stage that may be skipped and are not.
        scale: 0 to 1, of the largest values.
    """
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


def between_options(places: Mapping[Scaled, float]) -> list[Scaled]:
    """The values that lie between two options, those nearest to the larger one first."""
    return sorted((each for each in places if places[each] % 1), key=lambda each: -(places[each] % 1))


def scaled_child(space: SearchSpace, places: Mapping[Scaled, float], up: Collection[Scaled]) -> Choice:
    """The largest child with scaled values.

    Args:
        space: the space.
        places: see `scaled_places`.
        up: the values between two options that become the larger one.
    """
    indices = list(space.largest().indices)
    for decisions, place in places.items():
        index = int(place) + (decisions in up and place > int(place))
        for number, decision in enumerate(decisions):
            indices[decision] = index if space.decisions[decision].kind != "skip" else int(number >= index)
    return Choice(indices=tuple(indices))


def scaled_within(space: SearchSpace, budgets: Sequence[Budget]) -> Choice | None:
    """The largest child, scaled in widths and depth until it just fits the budgets; None if no scale is small enough.

    Of the values between two options, those nearest to the larger one become it, as many as fit. The largest scales
    that fit with all values rounded down are tried, and the child that costs most is taken.
    """
    fitting: dict[Choice, float] = {}
    tried = 0
    for scale in reversed(scales()):
        places = scaled_places(space, "depth", scale)
        between = between_options(places)
        for count in range(len(between) + 1):
            child = scaled_child(space, places, between[:count])
            if (share := tightest_share(budgets, child)) > 1:
                break
            fitting[child] = share
        tried += bool(fitting)
        if tried == TRIED_SCALES:
            break
    return max(fitting, key=fitting.__getitem__, default=None)
