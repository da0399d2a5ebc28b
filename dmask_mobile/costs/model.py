"""The cost Protocol, and the additive form that every built-in cost has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from dmask_mobile.costs.chain import ChainCost, tabulate
from dmask_mobile.costs.guard import checked_number, custom_code
from dmask_mobile.costs.values import Correction, CostRange
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.cost import CostEstimate
from dmask_mobile.records.space import SearchSpace


class ExpectedCost(Protocol):
    """A cost of the whole supernet as a function of its gates."""

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The expected cost, a differentiable float64 scalar.

        Args:
            probabilities: one vector over the options for each of ``SearchSpace.decisions``.
        """
        ...


class SpaceCost(ExpectedCost, Protocol):
    """The cost of every child of one space. One-hot gates give the child's cost (a test asserts it)."""

    space: SearchSpace
    name: str
    unit: str

    def digest(self) -> str:
        """A digest that identifies the costs of all children; a search resumes only with the same digest."""
        ...

    def cost(self, choice: Choice) -> float:
        """The cost of one child, equal to the result of the model's ``estimate``."""
        ...

    def reachable(self) -> CostRange:
        """The lowest and the highest cost of any child."""
        ...


class CostModel(Protocol):
    """A cost that a search can limit by a budget."""

    name: str
    unit: str

    def estimate(self, child: ChildSpec) -> CostEstimate:
        """The cost of one network."""
        ...

    def on(self, space: SearchSpace) -> SpaceCost:
        """The cost of every child of ``space``, in the form that search and derivation use."""
        ...


class AdditiveCost(ABC):
    """A cost that is a sum over blocks, corrected by one rising line for each resolution.

    A model of your own defines ``name``, ``unit`` and ``block_cost``::

        class Depth(AdditiveCost):
            name, unit = "depth", "blocks"

            def block_cost(self, block, in_size):
                return 0.0 if block.kind == "skip" else 1.0
    """

    name: str
    unit: str

    @abstractmethod
    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """The cost of ``block`` on an input of ``in_size`` x ``in_size`` pixels."""

    def correction(self, resolution: int) -> Correction:
        """The line that turns the sum over blocks into the cost of a network at ``resolution`` pixels."""
        return Correction()

    def estimate(self, child: ChildSpec) -> CostEstimate:
        """The cost of one network."""
        total = sum(self._checked_block_cost(block, in_size) for block, in_size in child.located_blocks())
        return CostEstimate(
            cost=self.name,
            value=self._checked_correction(child.resolution).apply(total),
            unit=self.unit,
            num_measured=len(child.blocks),
        )

    def on(self, space: SearchSpace) -> ChainCost:
        """The cost tensors of every block of ``space`` at every resolution."""
        corrections = tuple(self._checked_correction(resolution) for resolution in space.input.resolutions)
        return ChainCost(space, self.name, self.unit, corrections, tabulate(space, self._checked_block_cost))

    @property
    def _is_ours(self) -> bool:
        """Whether this is a built-in cost, whose errors are not the user's."""
        return type(self).__module__.partition(".")[0] == "dmask_mobile"

    def _checked_block_cost(self, block: BlockSpec, in_size: int) -> float:
        """The result of `block_cost`; its errors and wrong values are reported as those of its author.

        Raises:
            DmaskError: naming the cost, the block and the exception or the value.
        """
        if self._is_ours:
            return self.block_cost(block, in_size)
        what = f"block_cost of {block.describe()} at {in_size} px"
        with custom_code(self.name, what):
            value = self.block_cost(block, in_size)
        return checked_number(value, self.name, what)

    def _checked_correction(self, resolution: int) -> Correction:
        if self._is_ours:
            return self.correction(resolution)
        what = f"correction at {resolution} px"
        with custom_code(self.name, what):
            offset, scale = self.correction(resolution)
        if not (math.isfinite(offset) and 0 < scale < math.inf):
            raise DmaskError(
                f"custom cost '{self.name}': {what} must have a finite offset and a scale > 0, got"
                f" {shown((offset, scale))}",
                "correct the cost",
            )
        return Correction(offset, scale)
