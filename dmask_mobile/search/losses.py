"""What the gates minimize beside the cross-entropy: budgets held by multipliers that adapt.

``CE + sum_b lambda_b log(E_b / budget_b) + mu (mean normalized entropy)``, E the exact expected cost under the
noise-free gates. ``lambda_b`` is a proportional-integral controller on the log ratio: it grows while the search is
over budget, turns negative while it is under, and stands still when the expected cost *is* the budget. ``mu`` leads
the entropy down its schedule in the same way, so that the gates are decided when the budget is met (ours; the fixed
multipliers of FBNet and FBNetV2 need several searches to hit a target, as TuNAS' authors report).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from dmask_mobile.costs.model import ExpectedCost
from dmask_mobile.records.base import Record
from dmask_mobile.supernet.gates import GateLogits


class ControlSettings(Record):
    """Gains of the controllers; gates are led to a decision while every cost is this close to its budget."""

    budget_gain: PositiveFloat = 50.0
    budget_rate: PositiveFloat = 0.5
    entropy_gain: PositiveFloat = 10.0
    entropy_rate: PositiveFloat = 0.5
    decide_within: PositiveFloat = 0.04


class BudgetLoss:
    """Costs held to budgets, and gates led to a decision.

    Args:
        costs: the expected costs.
        budgets: one for each cost, in its unit.
        settings: the controllers' gains.
    """

    def __init__(self, costs: Sequence[ExpectedCost], budgets: Sequence[float], settings: ControlSettings) -> None:
        self.costs = costs
        self.budgets = budgets
        self.settings = settings
        self.multipliers = [0.0] * len(costs)
        self.entropy_multiplier = 0.0

    def __call__(self, logits: GateLogits, target_entropy: float) -> Tensor:
        """The penalty (a scalar) at these logits; moves the multipliers by one step."""
        probabilities = logits.probabilities()
        penalty = torch.zeros((), dtype=torch.float64)
        worst = 0.0
        for index, (cost, budget) in enumerate(zip(self.costs, self.budgets, strict=True)):
            log_ratio = torch.log(cost.expected(probabilities) / budget)
            error = float(log_ratio.detach())
            worst = max(worst, abs(error))
            self.multipliers[index] += self.settings.budget_rate * error
            penalty = penalty + (self.multipliers[index] + self.settings.budget_gain * error) * log_ratio
        entropy = logits.normalized_entropies().mean()
        excess = float(entropy.detach()) - target_entropy
        # The budget goes first: gates that decide while it is missed are hard to move afterwards.
        near = max(0.0, 1 - worst / self.settings.decide_within)
        self.entropy_multiplier = max(0.0, self.entropy_multiplier + near * self.settings.entropy_rate * excess)
        weight = max(0.0, self.entropy_multiplier + self.settings.entropy_gain * excess)
        return penalty + near * weight * entropy

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"multipliers": list(self.multipliers), "entropy_multiplier": self.entropy_multiplier}

    def restore(self, state: dict[str, object]) -> None:
        """Takes back what `state` gave."""
        multipliers, entropy_multiplier = state["multipliers"], state["entropy_multiplier"]
        assert isinstance(multipliers, list)
        assert isinstance(entropy_multiplier, float)
        self.multipliers = list(multipliers)
        self.entropy_multiplier = entropy_multiplier
