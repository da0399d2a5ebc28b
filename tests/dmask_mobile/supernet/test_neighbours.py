"""Tests of children that share their first blocks with a base."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.sensitivity import changes_of
from dmask_mobile.supernet.neighbours import Neighbours
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.dmask_mobile.small import SPACE
from tests.strategies import spaces_with_choice


def images(space: SearchSpace) -> torch.Tensor:
    shape = (4, space.input.channels, space.resolution, space.resolution)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@given(spaces_with_choice(), st.integers(0, 2**32))
def test_a_neighbour_has_the_scores_of_the_child(case: tuple[SearchSpace, Choice], seed: int) -> None:
    space, base = case
    x, supernet = images(space), MaskedSupernet(space).train()
    neighbours = Neighbours(supernet, x, base)
    draw = random.Random(seed)
    changes = changes_of(base, [len(decision.options) for decision in space.decisions])
    for child in [*draw.sample(changes, min(3, len(changes))), space.sample(draw)]:
        with torch.no_grad():
            torch.testing.assert_close(neighbours(child), supernet(x, child), rtol=0, atol=0)


def changed(base: Choice, decision: int) -> Choice:
    return Choice(indices=(*base.indices[:decision], 0, *base.indices[decision + 1 :]))


def test_blocks_as_in_the_base_are_not_computed_again() -> None:
    supernet = MaskedSupernet(SPACE).train()
    neighbours = Neighbours(supernet, images(SPACE), SPACE.largest())
    norm = supernet.blocks[0].norm
    before = int(norm.num_batches_tracked)
    names = [decision.name for decision in SPACE.decisions]
    neighbours(changed(SPACE.largest(), names.index("last.width")))
    assert int(norm.num_batches_tracked) == before
    neighbours(SPACE.smallest())
    assert int(norm.num_batches_tracked) == before + 1
