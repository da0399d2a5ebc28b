"""Children whose costs are close to the budgets, with every option as likely as that allows.

Shared weights serve those children best that they are trained as. If children of any cost were trained, most steps
would go to children that the budgets exclude. If the children were trained that the gates prefer, the shared weights
would adapt to them, and that would be taken for quality. So children near the budgets are trained, whatever the gates
prefer.
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
ATTEMPTS = 200  # draws for one child; the nearest of them is taken where none is near enough
CLOSE, MAX_STEPS, MAX_STEP = 0.005, 100, 2.0  # of Newton's method
SHARPER, MAX_SHARPENINGS, FAR = 1.15, 60, 0.01  # of the gates


def centre_on_budgets(logits: GateLogits, costs: Sequence[ExpectedCost], limits: Sequence[float]) -> float:
    """Moves ``logits`` until the expected cost is the budget, by Newton's method along the gradient.

    Returns:
        How far the logarithm of the expected cost is still from the budget's.

    Each step is the smallest one that solves the linearized equation ``log(E[cost] / limit) = 0``, so that gates which
    hardly cost anything stay as they are. Of several costs the one that is nearest to its limit, or furthest over it,
    is solved for.
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
    """Sharpens ``logits`` in small steps until their mean normalized entropy is ``entropy``, on the budgets all along.

    Every step keeps the order of options; one that leads away from the budgets is taken back, and ends it.
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

    Where none of many draws is, the nearest of them.
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
    """The cost of a child as a share of its budget; of several budgets the largest."""
    return max(budget.cost.cost(choice) / budget.limit for budget in budgets)
