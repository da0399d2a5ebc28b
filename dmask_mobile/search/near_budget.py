"""Draws children whose costs are close to the budgets, with options as equally likely as this allows.

Shared weights work best for the children that were trained with them. If children of any cost were trained, most steps
would be spent on children that the budgets exclude. If the children that the gates prefer were trained, the shared
weights would adapt to them, and the gates would mistake this for better quality. So children near the budgets are
trained, independently of what the gates prefer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from dmask_mobile.costs.model import ExpectedCost
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget
from dmask_mobile.supernet.gates import GateLogits

LOWEST = 0.9  # of the budget
ATTEMPTS = 200  # draws for one child; if none is near enough, the nearest is used
CLOSE, MAX_STEPS, MAX_STEP = 0.005, 100, 2.0  # of Newton's method
SHARPER, MAX_SHARPENINGS, FAR = 1.15, 60, 0.01  # of the gates


def centre_on_budgets(logits: GateLogits, costs: Sequence[ExpectedCost], limits: Sequence[float]) -> float:
    """Moves ``logits`` until the expected cost is the budget, by Newton's method along the gradient.

    Returns:
        The remaining difference between the logarithms of the expected cost and of the budget.

    Each step is the smallest one that solves the linearized equation ``log(E[cost] / limit) = 0``, so that gates with
    little influence on the cost hardly change. With several costs, the equation is that of the cost nearest to its
    limit, or furthest over it.
    """
    error = math.inf
    for _ in range(MAX_STEPS):
        probabilities = logits.probabilities()
        ratios = [torch.log(c.expected(probabilities) / limit) for c, limit in zip(costs, limits, strict=True)]
        tightest = max(ratios, key=lambda ratio: float(ratio.detach()))
        error = float(tightest.detach())
        if abs(error) < CLOSE:
            break
        (gradient,) = torch.autograd.grad(tightest, [logits.logits])
        square = float(gradient.square().sum())
        if not square > 0:
            break
        step = error / square * gradient
        largest = float(step.abs().max())
        with torch.no_grad():
            logits.logits.sub_(step * min(1.0, MAX_STEP / largest))
    return abs(error)


def decide(logits: GateLogits, costs: Sequence[ExpectedCost], limits: Sequence[float], entropy: float) -> None:
    """Sharpens ``logits`` in small steps until their mean normalized entropy is ``entropy``, and keeps the budgets.

    Every step keeps the order of options. A step that leads away from the budgets is undone, and is the last one.
    """
    for _ in range(MAX_SHARPENINGS):
        if float(logits.normalized_entropies().mean().detach()) <= entropy:
            return
        before = logits.logits.detach().clone()
        with torch.no_grad():
            logits.logits.mul_(SHARPER)
        if centre_on_budgets(logits, costs, limits) > FAR:
            with torch.no_grad():
                logits.logits.copy_(before)
            return


def draw_near(
    logits: GateLogits, budgets: Sequence[Budget], generator: torch.Generator, lowest: float = LOWEST
) -> Choice:
    """A child drawn from ``logits`` whose tightest cost is between ``lowest`` and 1 times its budget.

    If none of many draws is, the nearest of them.
    """
    nearest, distance = None, math.inf
    for _ in range(ATTEMPTS):
        choice = logits.draw(generator)
        share = tightest_share(budgets, choice)
        if lowest <= share <= 1:
            return choice
        miss = share - 1 if share > 1 else lowest - share
        if miss < distance:
            nearest, distance = choice, miss
    assert nearest is not None
    return nearest


def tightest_share(budgets: Sequence[Budget], choice: Choice) -> float:
    """The cost of a child as a share of the budget; with several budgets, the largest share."""
    return max(budget.cost.cost(choice) / budget.limit for budget in budgets)
