"""`CustomSpaceCost`: wraps a user's `SpaceCost` and checks the result of every call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.guard import checked_number, custom_code
from dmask_mobile.costs.memory import SpacePeak
from dmask_mobile.costs.model import SpaceCost
from dmask_mobile.costs.peak_and_sum import PeakAndSum
from dmask_mobile.costs.values import CostRange
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.choice import Choice


class CustomSpaceCost:
    """A `SpaceCost` that calls the user's one and reports its errors as the user's.

    Raises:
        DmaskError: if the cost lacks a part of the Protocol.
    """

    def __init__(self, cost: SpaceCost) -> None:
        name = getattr(cost, "name", type(cost).__name__)
        if missing := [
            part
            for part in ("space", "name", "unit", "digest", "cost", "expected", "reachable")
            if not hasattr(cost, part)
        ]:
            raise DmaskError(
                f"custom cost '{shown(name)}' has no '{missing[0]}'", "see dmask_mobile.costs.model.SpaceCost"
            )
        self.custom = cost
        self.space = cost.space
        self.name = cost.name
        self.unit = cost.unit

    def digest(self) -> str:
        """A digest that identifies the costs of all children."""
        with custom_code(self.name, "digest"):
            return str(self.custom.digest())

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The expected cost, a differentiable float64 scalar."""
        with custom_code(self.name, "expected"):
            value = torch.as_tensor(self.custom.expected(probabilities)).double().reshape(())
        checked_number(value.item(), self.name, "expected")
        return value

    def cost(self, choice: Choice) -> float:
        """The cost of one child."""
        with custom_code(self.name, "cost"):
            value = self.custom.cost(choice)
        return checked_number(value, self.name, "cost")

    def reachable(self) -> CostRange:
        """The lowest and the highest cost of any child."""
        with custom_code(self.name, "reachable"):
            low, high = self.custom.reachable()
        return CostRange(checked_number(low, self.name, "reachable"), checked_number(high, self.name, "reachable"))


def checked_cost(cost: SpaceCost) -> SpaceCost:
    """``cost`` itself if it is built in, otherwise ``cost`` with checks around it.

    A subclass of a built-in cost that overrides how a child's cost is computed counts as a custom cost.
    """
    if isinstance(cost, CustomSpaceCost) or any(
        isinstance(cost, known) and type(cost).cost is known.cost for known in (ChainCost, SpacePeak, PeakAndSum)
    ):
        return cost
    return CustomSpaceCost(cost)
