"""Children that no search has chosen: uniform scaling, draws within the budget, regularized evolution."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.scaling import Scaled, Way, between_options, scaled_child, scaled_places, scales
from search_quality.protocol import Ungated

FLOOR, CENTRE = 0.95, 0.975  # of the budget: what a child must cost at least, and what one costs in the mean
MAX_DRAWS = 1_000_000
Accuracy = Callable[[Choice], float]


def fits(cost: ChainCost, choice: Choice, budget: float) -> bool:
    """Whether a child lies in [0.95, 1.00] times the budget."""
    return FLOOR * budget <= cost.cost(choice) <= budget


def within(cost: ChainCost, budget: float, count: int, generator: random.Random) -> Iterator[Choice]:
    """Different children drawn uniformly from those in [0.95, 1.00] times the budget, by rejection.

    Raises:
        DmaskError: when a million draws hold too few.
    """
    found: set[str] = set()
    for _ in range(MAX_DRAWS):
        if len(found) == count:
            return
        choice = cost.space.sample(generator)
        child = cost.space.child(choice).digest() if fits(cost, choice, budget) else None
        if child is not None and child not in found:
            found.add(child)
            yield choice
    raise DmaskError(
        f"only {len(found)} of {count} children lie near the budget in {MAX_DRAWS:,} draws",
        "choose another budget_macs",
    )


def typical_latency(latency: ChainCost, macs: ChainCost, wanted_macs: float) -> float:
    """The budget whose children have about ``wanted_macs``: their median latency lies at the centre of the range.

    Raises:
        DmaskError: when few children of the space have so many.
    """
    generator = random.Random(0)
    drawn = [latency.space.sample(generator) for _ in range(5_000)]
    near = [latency.cost(choice) for choice in drawn if abs(macs.cost(choice) / wanted_macs - 1) <= 0.05]
    if len(near) < 20:
        low, high = macs.reachable()
        raise DmaskError(
            f"too few children have {wanted_macs:g} multiply-adds; those of the space have {low:g} to {high:g}",
            "choose another budget_macs",
        )
    return float(np.median(near)) / CENTRE


def scaled_children(cost: ChainCost, way: Way, wanted: float, count: int) -> list[Choice]:
    """The children, scaled in one way, whose costs lie nearest to ``wanted``; the most evenly scaled ones first.

    Resolutions are few and far between: where they are scaled, each of them is tried, and the one preferred whose share
    of the largest is nearest to that of the widths.
    """
    found: dict[Choice, tuple[float, ...]] = {}
    resolutions = cost.space.decisions[0].options
    for number in range(len(resolutions)) if way == "resolution" else [len(resolutions) - 1]:
        for scale in scales():
            unevenness = abs(math.log(scale * resolutions[-1] / resolutions[number])) if way == "resolution" else 0.0
            places = scaled_places(cost.space, way, scale)
            for up, changed in _roundings(places):
                choice = Choice(indices=(number, *scaled_child(cost.space, places, up).indices[1:]))
                off = round(abs(cost.cost(choice) / wanted - 1) / 0.005)  # half a percent is no difference
                rank = off, unevenness, changed
                found[choice] = min(rank, found.get(choice, rank))
    return sorted(found, key=lambda choice: found[choice])[:count]


def _roundings(places: Mapping[Scaled, float]) -> Iterator[tuple[set[Scaled], int]]:
    """What is rounded up: the first so many of those nearest to the larger option, all or all but one of them.

    Beside each, how many of them ordinary rounding would treat differently.
    """
    between = between_options(places)
    even = {each for each in between if places[each] % 1 > 0.5}
    for count in range(len(between) + 1):
        for left_out in [(), *between[: max(0, count - 1)]]:
            up = {*between[:count]} - {left_out}
            yield up, len(up ^ even)


def evolve(cost: ChainCost, budget: float, accuracy: Accuracy, settings: Ungated, generator: random.Random) -> None:
    """Regularized evolution (Real et al., 2019, algorithm 1) within the budget, judging so many children.

    The best of a sample is mutated in one decision; the oldest of the population dies.
    """
    members = deque(within(cost, budget, settings.population, generator))
    judged = {choice: accuracy(choice) for choice in members}
    for _ in range(20 * settings.evaluations):  # children that were judged before do not count
        if len(judged) >= settings.evaluations:
            break
        parent = max(generator.sample(list(members), settings.sample), key=judged.__getitem__)
        child = _mutated(cost, parent, budget, generator)
        judged[child] = accuracy(child)
        members.append(child)
        members.popleft()


def _mutated(cost: ChainCost, parent: Choice, budget: float, generator: random.Random) -> Choice:
    """A child that differs from its parent in one decision; in more where no such child fits the budget."""
    open_decisions = [i for i, decision in enumerate(cost.space.decisions) if len(decision.options) > 1]
    start = child = parent
    for attempt in range(1, MAX_DRAWS):
        if attempt % 200 == 0:
            start = child
        indices = list(start.indices)
        changed = generator.choice(open_decisions)
        indices[changed] = generator.choice(
            [i for i in range(len(cost.space.decisions[changed].options)) if i != indices[changed]]
        )
        child = Choice(indices=tuple(indices))
        if fits(cost, child, budget):
            return child
    raise RuntimeError("no mutation within the budget")
