"""Plans what to measure for a space, and what to measure next."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import numpy as np

from dmask_mobile.costs.chain import tabulate
from dmask_mobile.costs.counts import Macs
from dmask_mobile.records.block import RESIDUAL_KINDS, BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.prediction.predictor import MIN_BLOCKS
from latency_tables.table.rows import BlockAt, Subject
from latency_tables.table.table import LatencyTable

NETWORKS_PER_RESOLUTION, NUM_NETWORKS = 5, 24
NUM_FEW_NETWORKS = 10
NUM_SENTINELS, NUM_BLOCK_SENTINELS = 3, 5
CANDIDATE_CHILDREN = 300
EXPLORED_SHARE = 0.5  # of a batch that is drawn like children; the rest are blocks with the least certain predictions


def blocks_of(space: SearchSpace) -> tuple[BlockAt, ...]:
    """Every block that a child of ``space`` can have, each once, with its input size."""
    found: dict[BlockAt, None] = {}

    def note(block: BlockSpec, in_size: int) -> float:
        if block.kind != "skip":
            found[block, in_size] = None
        return 0.0

    tabulate(space, note)
    return tuple(found)


def networks_of(space: SearchSpace, seed: int = 0) -> tuple[ChildSpec, ...]:
    """Whole networks for correcting sums of blocks: at each resolution the smallest, the largest, and random ones.

    There are at least five at each resolution and at least 24 in all, because five coefficients are fitted to them.
    """
    generator = random.Random(seed)
    resolutions = range(len(space.input.resolutions))
    count = max(NETWORKS_PER_RESOLUTION, -(-NUM_NETWORKS // len(resolutions)))
    children = []
    for resolution in resolutions:
        choices = [space.smallest(), space.largest(), *(space.sample(generator) for _ in range(count - 2))]
        for number, choice in enumerate(choices):
            placed = Choice(indices=(resolution, *choice.indices[1:]))
            children.append(space.child(placed, f"{space.name}-{number}"))
    return tuple({child.digest(): child for child in reversed(children)}.values())[::-1]


def few_networks_of(networks: Sequence[ChildSpec]) -> tuple[ChildSpec, ...]:
    """Ten of these networks for a table with a prior: at each resolution two random ones, the largest, then others.

    Where there is time for seven, these are like the children that will be predicted. The smallest networks, which are
    far from them, come last.
    """
    return _few(networks, lambda here: [*here[2:4], *here[1:2], *here[4:], *here[:1]])


def spread_networks_of(networks: Sequence[ChildSpec]) -> tuple[ChildSpec, ...]:
    """Ten of these networks for metrics beside latency: at each resolution a random one, the largest, the smallest."""
    return _few(networks, lambda here: [*here[2:3], *here[1:2], *here[:1], *here[3:]])


def _few(networks: Sequence[ChildSpec], ordered: Callable[[list[ChildSpec]], list[ChildSpec]]) -> tuple[ChildSpec, ...]:
    """Ten of these networks, the resolutions taking turns; at each the smallest, the largest, random ones, ordered."""
    by_resolution: dict[int, list[ChildSpec]] = defaultdict(list)
    for child in networks:
        by_resolution[child.resolution].append(child)
    return alternating([child for here in by_resolution.values() for child in ordered(here)])[:NUM_FEW_NETWORKS]


def sentinels_of(networks: Sequence[ChildSpec]) -> tuple[ChildSpec, ...]:
    """Three networks that can be measured repeatedly in a short time: the first ones, at the lowest resolution."""
    return tuple(networks[:NUM_SENTINELS])


def block_sentinels_of(blocks: Sequence[BlockAt]) -> tuple[BlockAt, ...]:
    """Five of these blocks to measure repeatedly, spread from few to many multiply-adds."""
    located = sorted(
        (at for at in blocks if at[0].kind in RESIDUAL_KINDS),
        key=lambda at: (Macs().block_cost(*at), repr(at)),
    )
    places = [(2 * number + 1) * len(located) // (2 * NUM_BLOCK_SENTINELS) for number in range(NUM_BLOCK_SENTINELS)]
    return tuple(dict.fromkeys(located[place] for place in places if located))


def alternating(networks: Sequence[ChildSpec]) -> tuple[ChildSpec, ...]:
    """The same networks, with the resolutions taking turns: where time is short, each gets some."""
    by_resolution: dict[int, list[ChildSpec]] = defaultdict(list)
    for child in networks:
        by_resolution[child.resolution].append(child)
    turns = itertools.zip_longest(*by_resolution.values())
    return tuple(child for turn in turns for child in turn if child is not None)


class Planner:
    """Chooses the blocks of a space that a table should get next.

    Blocks whose measuring was interrupted come first, then all those of kinds that a space has few of (stem, last
    convolution, head). Of the others one half is drawn as random children use them, so that common blocks come early;
    the other half is where the prediction's spread in milliseconds is largest. As long as nothing can be predicted,
    all are drawn.

    Args:
        space: the space.
        rounds: how often each block is to be measured.
        failed: what is not tried again; may grow.
        seed: of the draws.
    """

    def __init__(self, space: SearchSpace, rounds: int = 1, failed: Collection[Subject] = (), seed: int = 0) -> None:
        self.space = space
        self.rounds = rounds
        self.failed = failed
        self.generator = random.Random(seed)
        self.all = blocks_of(space)

    def missing(self, table: LatencyTable) -> list[BlockAt]:
        """What was not measured in all rounds, without what failed."""
        rounds = table.num_rounds
        return [b for b in self.all if rounds.get(b, 0) < self.rounds and b not in self.failed]

    def can_predict(self, model: LatencyModel) -> bool:
        """Whether enough was measured to predict the kinds of blocks that the space has many of."""
        return all(model.can_predict(kind) for kind in {block.kind for block, _ in self.all} & {*RESIDUAL_KINDS})

    def next_batch(self, model: LatencyModel, size: int) -> list[BlockAt]:
        """About ``size`` blocks that are missing; none when all of them were measured.

        More than that where none could be predicted yet: enough for predicting them.
        """
        table, missing = model.table, self.missing(model.table)
        rare = [b for b in missing if b in table.blocks]  # begun, but interrupted
        if not table.prior:  # which predicts them
            rare += [b for b in missing if b[0].kind not in RESIDUAL_KINDS and b not in table.blocks]
        can_predict = self.can_predict(model)
        if not can_predict and not table.prior:
            size = max(size, len(rare) + 2 * MIN_BLOCKS)
        if len(missing) <= size or len(rare) >= size:
            return list(dict.fromkeys([*rare, *missing]))[:size]
        wanted = dict.fromkeys(rare)
        others = set(missing) - wanted.keys()
        candidates = list(dict.fromkeys(b for b in self._used_by_children() if b in others))
        candidates = candidates or [b for b in missing if b in others]
        explored = round(EXPLORED_SHARE * (size - len(rare))) if can_predict else size
        wanted |= dict.fromkeys(candidates[:explored])
        rest = candidates[explored:]
        if rest and len(wanted) < size:
            order = np.argsort(-np.asarray(model.spread_ms(rest)))
            wanted |= dict.fromkeys(rest[index] for index in order[: size - len(wanted)])
        return list(wanted)[:size]

    def _used_by_children(self) -> list[BlockAt]:
        """The blocks of random children, in random order."""
        located = [
            block
            for _ in range(CANDIDATE_CHILDREN)
            for block in self.space.child(self.space.sample(self.generator)).located_blocks()
            if block[0].kind != "skip"
        ]
        self.generator.shuffle(located)
        return located
