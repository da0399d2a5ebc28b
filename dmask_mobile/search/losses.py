"""The losses of the gates: cross-entropy combined with costs in one of three forms.

``budget`` (default, ours): ``CE + sum_b lambda_b log(E_b / budget_b) + mu (mean normalized entropy)``, E the exact
expected cost under the noise-free gates. ``lambda_b`` is a proportional-integral controller on the log ratio: it
grows while the search is over budget, turns negative while it is under, and stands still when the expected cost *is*
the budget. With several budgets, only the one that is nearest to its limit, or furthest over it, is controlled from
both sides; for the others ``lambda_b`` does not fall below 0. ``mu`` is a controller of the same kind that makes the
entropy follow its schedule, so that the gates are decided when the budget is met.

``fbnet``: ``CE * a * log(1 + cost / budget)^b``, based on ``CE * a * log(cost)^b`` (Wu et al., CVPR 2019, equation 2; a
= 0.2, b = 0.6 in an open re-implementation). The published form depends on the unit of the cost: its logarithm is 0 or
negative for costs below 1 (0.07 ms), and for costs far above 1 its gradient is nearly 0. Here the cost is divided by
the budget and 1 is added, so that the loss is the same in every unit and its gradient never vanishes.
``linear``: ``CE + lambda * cost / budget`` with a fixed lambda; the same in every unit. The last two do not aim at a
budget: the authors of TuNAS report that about seven searches were needed to hit a latency with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from dmask_mobile.costs.model import ExpectedCost
from dmask_mobile.records.base import Record
from dmask_mobile.records.setting_names import LossName as LossName
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.training.restoring import finite_number, require_keys


class GateLoss(Protocol):
    """The loss of a gate step."""

    costs: Sequence[ExpectedCost]
    budgets: Sequence[float]

    def __call__(self, cross_entropy: Tensor, logits: GateLogits, target_entropy: float) -> Tensor:
        """The loss (a scalar) at these logits; may move its controllers by one step."""
        ...

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        ...

    def restore(self, state: object) -> None:
        """Takes back what `state` gave.

        Raises:
            ValueError: when it is anything else.
        """
        ...


class ControlSettings(Record):
    """Gains of the controllers, and how close every cost must be to its budget while the entropy is lowered."""

    budget_gain: PositiveFloat = 50.0
    budget_rate: PositiveFloat = 2.0
    entropy_gain: PositiveFloat = 20.0
    entropy_rate: PositiveFloat = 1.0
    decide_within: PositiveFloat = 0.04


class BudgetLoss:
    """The loss that keeps costs at their budgets and leads the gates to a decision.

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

    def __call__(self, cross_entropy: Tensor, logits: GateLogits, target_entropy: float) -> Tensor:
        """The loss at these logits; moves the multipliers by one step."""
        probabilities = logits.probabilities()
        log_ratios = [
            torch.log(cost.expected(probabilities) / budget)
            for cost, budget in zip(self.costs, self.budgets, strict=True)
        ]
        errors = [float(log_ratio.detach()) for log_ratio in log_ratios]
        tightest = max(range(len(errors)), key=errors.__getitem__)
        penalty = torch.zeros((), dtype=torch.float64)
        for index, (log_ratio, error) in enumerate(zip(log_ratios, errors, strict=True)):
            least = -math.inf if index == tightest else 0.0
            # While a cost is far from its budget, the integral must not grow: it would take as long to come back.
            close = self.settings.decide_within
            step = self.settings.budget_rate * min(close, max(-close, error))
            self.multipliers[index] = max(least, self.multipliers[index] + step)
            pull = max(least, self.multipliers[index] + self.settings.budget_gain * error)
            penalty = penalty + pull * log_ratio
        entropy = logits.normalized_entropies().mean()
        excess = float(entropy.detach()) - target_entropy
        # The budget comes first: gates that are decided while it is missed are hard to change afterwards.
        near = max(0.0, 1 - abs(errors[tightest]) / self.settings.decide_within)
        self.entropy_multiplier = max(0.0, self.entropy_multiplier + near * self.settings.entropy_rate * excess)
        weight = max(0.0, self.entropy_multiplier + self.settings.entropy_gain * excess)
        return cross_entropy + penalty + near * weight * entropy

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"multipliers": list(self.multipliers), "entropy_multiplier": self.entropy_multiplier}

    def restore(self, state: object) -> None:
        """Takes back what `state` gave."""
        found = require_keys(state, frozenset(self.state()), "loss")
        multipliers = found["multipliers"]
        if not isinstance(multipliers, list) or len(multipliers) != len(self.costs):
            raise ValueError(f"loss: multipliers must be a list of {len(self.costs)}")
        self.multipliers = [finite_number(value, "loss: a multiplier") for value in multipliers]
        self.entropy_multiplier = finite_number(found["entropy_multiplier"], "loss: entropy_multiplier")


class FixedSettings(Record):
    """Constants of the two losses that do not adapt."""

    fbnet_scale: PositiveFloat = 0.2
    fbnet_exponent: PositiveFloat = 0.6
    linear_weight: float = Field(default=0.1, ge=0)


class FbnetLoss:
    """``CE * a * log(1 + cost / budget)^b``; with several costs, the product of their factors (see above)."""

    def __init__(self, costs: Sequence[ExpectedCost], budgets: Sequence[float], settings: FixedSettings) -> None:
        self.costs = costs
        self.budgets = budgets
        self.settings = settings

    def __call__(self, cross_entropy: Tensor, logits: GateLogits, target_entropy: float) -> Tensor:
        """The loss at these logits. A cost of 0 gets no gradient (for ``b < 1`` it would be infinite)."""
        probabilities = logits.probabilities()
        loss = cross_entropy
        for cost, budget in zip(self.costs, self.budgets, strict=True):
            share = (cost.expected(probabilities) / budget).clamp_min(1e-9)
            loss = loss * self.settings.fbnet_scale * torch.log1p(share) ** self.settings.fbnet_exponent
        return loss

    def state(self) -> dict[str, object]:
        """Nothing adapts."""
        return {}

    def restore(self, state: object) -> None:
        """Checks that there is nothing to take back."""
        require_keys(state, frozenset(), "loss")


class LinearLoss:
    """``CE + lambda * sum_b cost_b / budget_b``."""

    def __init__(self, costs: Sequence[ExpectedCost], budgets: Sequence[float], settings: FixedSettings) -> None:
        self.costs = costs
        self.budgets = budgets
        self.settings = settings

    def __call__(self, cross_entropy: Tensor, logits: GateLogits, target_entropy: float) -> Tensor:
        """The loss at these logits."""
        probabilities = logits.probabilities()
        ratios = [c.expected(probabilities) / b for c, b in zip(self.costs, self.budgets, strict=True)]
        return cross_entropy + self.settings.linear_weight * torch.stack(ratios).sum()

    def state(self) -> dict[str, object]:
        """Nothing adapts."""
        return {}

    def restore(self, state: object) -> None:
        """Checks that there is nothing to take back."""
        require_keys(state, frozenset(), "loss")
