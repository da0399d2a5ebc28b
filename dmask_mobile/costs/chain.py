"""Cost tensors of a whole space and their contraction with gates: the exact expected cost.

A block's cost depends on few decisions (input and output width, expansion, kernel, squeeze-excite, skip). Its cost
tensor contains the cost of every combination of their options. Contracted with the gate probabilities, it gives the
exact expected cost of the block, because the gates are independent. One-hot gates select one entry, the estimate of
that child. (FBNetV2, section 3.2, approximates this by a product of effective shapes.)
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmask_mobile.costs.values import Correction, CostRange
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, Slot


class BlockCosts(NamedTuple):
    """The costs of one slot: ``values[r, i, j, ...]`` over resolutions and the options of ``decisions``."""

    decisions: tuple[int, ...]
    values: np.ndarray

    def expected(self, gates: Sequence[Tensor]) -> Tensor:
        """The expected cost at each resolution (R,): the tensor contracted with the float64 gates of its decisions."""
        values_R = torch.from_numpy(self.values)
        for decision in reversed(self.decisions):
            values_R = values_R @ gates[decision]
        return values_R

    def of(self, choice: Choice) -> float:
        """The entry for one child."""
        return float(self.values[(choice[0], *(choice[d] for d in self.decisions))])


class ChainCost:
    """The cost of every child of a space, as one tensor for each slot.

    ``expected`` satisfies `ExpectedCost`; derivation reads ``blocks`` and ``corrections``.
    """

    def __init__(
        self,
        space: SearchSpace,
        name: str,
        unit: str,
        corrections: tuple[Correction, ...],
        blocks: tuple[BlockCosts, ...],
    ) -> None:
        self.space = space
        self.name = name
        self.unit = unit
        self.corrections = corrections
        self.blocks = blocks
        self._offsets = torch.tensor([c.offset for c in self.corrections], dtype=torch.float64)
        self._scales = torch.tensor([c.scale for c in self.corrections], dtype=torch.float64)

    def digest(self) -> str:
        """A digest that identifies the costs of all children."""
        return digest_of(self.blocks, repr(self.corrections))

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The expected cost, a differentiable float64 scalar; see `ExpectedCost`."""
        gates = [gate.double() for gate in probabilities]
        sums_R = torch.zeros_like(self._scales)
        for block in self.blocks:
            sums_R = sums_R + block.expected(gates)
        return (self._offsets + self._scales * sums_R) @ gates[0]

    def cost(self, choice: Choice) -> float:
        """The cost of one child, equal to the result of ``estimate``."""
        return self.corrections[choice[0]].apply(sum(block.of(choice) for block in self.blocks))

    def reachable(self) -> CostRange:
        """The lowest and the highest cost of any child, found as shortest paths over the chain of widths."""
        blocks = [block.values for block in self.blocks]
        lows = [c.apply(lowest_path(self.space, [b[r] for b in blocks])) for r, c in enumerate(self.corrections)]
        highs = [c.apply(-lowest_path(self.space, [-b[r] for b in blocks])) for r, c in enumerate(self.corrections)]
        return CostRange(min(lows), max(highs))


def digest_of(blocks: Sequence[BlockCosts], others: str = "") -> str:
    """Sixteen hexadecimal digits that identify the tensors and ``others``."""
    digest = hashlib.sha256(others.encode())
    for block in blocks:
        digest.update(np.ascontiguousarray(block.values).tobytes())
    return digest.hexdigest()[:16]


def lowest_path(space: SearchSpace, costs: Sequence[np.ndarray], join: Callable[..., Any] = np.add) -> float:
    """The lowest cost of any child at one resolution.

    Args:
        space: the space.
        costs: the costs of each slot over the options of its decisions.
        join: computes the cost of two blocks together: a sum, or ``np.maximum`` for costs >= 0.
    """
    best_by_width = np.zeros(1)
    position, slots = 0, space.slots
    while position < len(slots):
        end = position + 1  # slots that share an output width (a tied stage) form one step
        while end < len(slots) and slots[end].out_width == slots[position].out_width:
            end += 1
        before, after = (len(space.decisions[d].options) for d in (slots[position].in_width, slots[position].out_width))
        step = np.zeros((before, after))
        for index in range(position, end):
            values = costs[index]
            num_widths = 1 if slots[index].in_width == slots[index].out_width else 2
            step = join(step, values.min(axis=tuple(range(num_widths, values.ndim))))
        best_by_width = join(best_by_width[:, None], step).min(axis=0)
        position = end
    return float(best_by_width.min())


def tabulate(space: SearchSpace, block_cost: Callable[[BlockSpec, int], float]) -> tuple[BlockCosts, ...]:
    """``block_cost(block, in_size)`` of every block that a slot of ``space`` can hold, at every resolution."""
    sizes = list(space.input.resolutions)
    blocks = []
    for slot in space.slots:
        values = np.stack([_slot_costs(space, slot, block_cost, size) for size in sizes])
        blocks.append(BlockCosts(slot.decisions, values))
        sizes = [space.block(slot, space.largest()).out_size(size) for size in sizes]
    return tuple(blocks)


def free_cost(space: SearchSpace) -> ChainCost:
    """A cost of 0 for every child."""
    num_resolutions = len(space.input.resolutions)
    blocks = []
    for slot in space.slots:
        shape = [len(space.decisions[d].options) for d in slot.decisions]
        blocks.append(BlockCosts(slot.decisions, np.zeros((num_resolutions, *shape))))
    return ChainCost(space, "", "", (Correction(),) * num_resolutions, tuple(blocks))


def weighted_sum(costs: Sequence[ChainCost], weights: Sequence[float]) -> ChainCost:
    """``sum_k weights_k cost_k`` for costs of one space, including their corrections; its own correction scale is 1."""
    first = costs[0]
    blocks = []
    for position, block in enumerate(first.blocks):
        values = np.zeros_like(block.values)
        for cost, weight in zip(costs, weights, strict=True):
            scales = np.array([c.scale for c in cost.corrections]).reshape(-1, *[1] * (values.ndim - 1))
            values = values + weight * scales * cost.blocks[position].values
        blocks.append(BlockCosts(block.decisions, values))
    offsets = [
        sum(w * cost.corrections[r].offset for cost, w in zip(costs, weights, strict=True))
        for r in range(len(first.corrections))
    ]
    name = " + ".join(cost.name for cost in costs)
    corrections = tuple(Correction(offset, 1.0) for offset in offsets)
    return ChainCost(first.space, name, "of the budgets", corrections, tuple(blocks))


def cost_shape(space: SearchSpace, slot: Slot) -> tuple[int, ...]:
    """The shape of a slot's cost tensor: resolutions, then the options of its decisions."""
    return (len(space.input.resolutions), *(len(space.decisions[d].options) for d in slot.decisions))


def _slot_costs(
    space: SearchSpace, slot: Slot, block_cost: Callable[[BlockSpec, int], float], in_size: int
) -> np.ndarray:
    shape = cost_shape(space, slot)[1:]
    costs = np.empty(shape)
    indices = list(space.largest().indices)
    known: dict[BlockSpec, float] = {}
    for entry in itertools.product(*map(range, shape)):
        for decision, option in zip(slot.decisions, entry, strict=True):
            indices[decision] = option
        block = space.block(slot, Choice(indices=tuple(indices)))
        if block not in known:
            known[block] = block_cost(block, in_size)
        costs[entry] = known[block]
    return costs
