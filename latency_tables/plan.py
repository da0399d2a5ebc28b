"""What to measure for a space: each distinct block once, and a few whole networks."""

from __future__ import annotations

import random
from typing import NamedTuple

from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

BlockAt = tuple[BlockSpec, int]


class Plan(NamedTuple):
    """Blocks with their input sizes in pixels, and whole networks."""

    blocks: tuple[BlockAt, ...]
    networks: tuple[ChildSpec, ...]


class _Visited(AdditiveCost):
    """A cost of nothing that remembers which blocks it was asked about."""

    name = "visited"
    unit = ""

    def __init__(self) -> None:
        self.blocks: dict[BlockAt, None] = {}

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        if block.kind != "skip":
            self.blocks[block, in_size] = None
        return 0.0


def plan_space(space: SearchSpace, networks: int = 12, seed: int = 0) -> Plan:
    """Every block that a child of ``space`` can have, and ``networks`` children at each resolution.

    The children are the smallest, the largest and random ones between, so that the fitted line spans the space.
    """
    visited = _Visited()
    visited.on(space)
    generator = random.Random(seed)
    choices = [space.smallest(), space.largest(), *(space.sample(generator) for _ in range(max(0, networks - 2)))]
    children = (
        space.child(Choice(indices=(resolution, *choice.indices[1:])), f"{space.name}-{number}")
        for resolution in range(len(space.input.resolutions))
        for number, choice in enumerate(choices)
    )
    return Plan(tuple(visited.blocks), tuple(dict.fromkeys(children)))


def sentinels(networks: tuple[ChildSpec, ...]) -> tuple[ChildSpec, ...]:
    """The fixed few networks that tell whether a device has changed: first, second and last of a table."""
    return tuple(dict.fromkeys((*networks[:2], networks[-1])))
