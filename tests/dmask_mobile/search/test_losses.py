from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, get_args

import pytest
import torch
from torch import Tensor

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.search.losses import (
    BudgetLoss,
    ControlSettings,
    FbnetLoss,
    FixedSettings,
    GateLoss,
    LinearLoss,
    LossName,
)
from dmask_mobile.search.search import gate_loss
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.gates import GateLogits
from tests.dmask_mobile.small import SPACE

COST = Macs().on(SPACE)
LOGITS = GateLogits(SPACE)
EXPECTED = float(COST.expected(LOGITS.probabilities()).detach())
LOSSES: dict[str, GateLoss] = {
    "budget": BudgetLoss([COST], [EXPECTED / 2], ControlSettings()),
    "fbnet": FbnetLoss([COST], [EXPECTED / 2], FixedSettings()),
    "linear": LinearLoss([COST], [EXPECTED / 2], FixedSettings()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_contract_of_every_loss(name: str) -> None:
    """Over the budget, a loss lowers the expected cost; a restored loss behaves in the same way."""
    logits = GateLogits(SPACE)
    loss = LOSSES[name](torch.tensor(2.0), logits, 1.0)
    (gradient,) = torch.autograd.grad(loss, logits.logits)
    with torch.no_grad():
        logits.logits -= 1e-2 * gradient / gradient.norm()
    assert COST.expected(logits.probabilities()).item() < EXPECTED
    state = LOSSES[name].state()
    following = LOSSES[name](torch.tensor(2.0), LOGITS, 1.0).item()
    LOSSES[name].restore(state)
    assert LOSSES[name](torch.tensor(2.0), LOGITS, 1.0).item() == following


def test_fbnet_and_linear_are_their_formulas() -> None:
    cross_entropy = torch.tensor(2.0)
    fbnet = FbnetLoss([COST], [1e5], FixedSettings(fbnet_scale=0.2, fbnet_exponent=0.6))
    assert fbnet(cross_entropy, LOGITS, 1.0).item() == pytest.approx(2 * 0.2 * math.log(1 + EXPECTED / 1e5) ** 0.6)
    linear = LinearLoss([COST], [1e5], FixedSettings(linear_weight=0.3))
    assert linear(cross_entropy, LOGITS, 1.0).item() == pytest.approx(2 + 0.3 * EXPECTED / 1e5)


class InUnit(NamedTuple):
    """The same cost in another unit."""

    factor: float

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        return COST.expected(probabilities) * self.factor


@pytest.mark.parametrize("loss", get_args(LossName))
def test_the_gates_learn_the_same_whatever_the_unit_of_a_cost(loss: LossName) -> None:
    """A latency of 70 us is 0.07 ms: below 1, where the published logarithm turns negative."""

    def gradient(factor: float) -> Tensor:
        settings = SearchSettings(method="dmasking", loss=loss)
        built = gate_loss([InUnit(factor)], [EXPECTED / 2 * factor], settings)
        logits = GateLogits(SPACE)
        (found,) = torch.autograd.grad(built(torch.tensor(2.0), logits, 1.0), logits.logits)
        return found

    microseconds = gradient(70 / EXPECTED)
    assert microseconds.abs().max() > 1e-4
    torch.testing.assert_close(gradient(0.07 / EXPECTED), microseconds)
    torch.testing.assert_close(gradient(7e-8 / EXPECTED), microseconds)


def test_of_several_budgets_only_the_tightest_may_pull_upwards() -> None:
    """Both budgets are half used: the one nearer to its limit raises the cost, the other has no effect."""
    near, loose = Macs().on(SPACE), Params().on(SPACE)
    loose_expected = float(loose.expected(LOGITS.probabilities()).detach())
    loss = BudgetLoss([near, loose], [EXPECTED * 1.2, loose_expected * 2], ControlSettings())
    loss(torch.zeros(()), LOGITS, 1.0)
    assert loss.multipliers[0] < 0
    assert loss.multipliers[1] == 0


def test_a_far_budget_does_not_wind_the_integral_up() -> None:
    control = ControlSettings(budget_rate=1, decide_within=0.04)
    for factor in (2, 100):
        loss = BudgetLoss([COST], [EXPECTED * factor], control)
        for _ in range(10):
            loss(torch.zeros(()), LOGITS, 1.0)
        assert loss.multipliers[0] == pytest.approx(-10 * 0.04)


def test_budget_loss_waits_with_the_decision_until_the_budget_is_near() -> None:
    far = BudgetLoss([COST], [EXPECTED * 2], ControlSettings())
    near = BudgetLoss([COST], [EXPECTED], ControlSettings())
    far(torch.zeros(()), LOGITS, 0.0)
    near(torch.zeros(()), LOGITS, 0.0)
    assert far.entropy_multiplier == 0
    assert near.entropy_multiplier > 0
