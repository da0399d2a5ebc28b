from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dmask_mobile.nets.blocks import InvertedResidual
from dmask_mobile.nets.build import build
from dmask_mobile.training.recipe_parts import moving_average_of, optimizer_of, schedule_of, stochastic_depth
from dmask_mobile.training.train import TrainSettings
from tests.dmask_mobile.small import SPACE

CHILD = SPACE.child(SPACE.largest())


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsproptf"])
def test_norms_and_biases_have_no_weight_decay(name: str) -> None:
    network = build(CHILD)
    settings = TrainSettings.model_validate({"optimizer": name, "weight_decay": 0.1})
    groups = optimizer_of(network, settings).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        is_weight = parameter.dim() > 1
        assert decay[id(parameter)] == (0.1 if is_weight else 0), name


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsproptf"])
def test_biases_of_norms_have_a_learning_rate_of_their_own(name: str) -> None:
    network = build(CHILD)
    settings = TrainSettings.model_validate({"optimizer": name, "norm_bias_rate": 8, "epochs": 10, "warmup_epochs": 0})
    optimizer = optimizer_of(network, settings)
    schedule = schedule_of(optimizer, settings, updates_per_epoch=20)
    biases = {id(part.bias) for part in network.modules() if isinstance(part, nn.BatchNorm2d)}
    assert biases
    for step in (0, 100):
        schedule.step_update(step)
        rate = settings.learning_rate * (1 + math.cos(math.pi * step / 200)) / 2
        rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
        for parameter in network.parameters():
            assert rates[id(parameter)] == pytest.approx((8 if id(parameter) in biases else 1) * rate)


def test_a_cosine_schedule_with_warmup_by_the_formula() -> None:
    settings = TrainSettings(epochs=10, warmup_epochs=1, learning_rate=0.4)
    optimizer = optimizer_of(build(CHILD), settings)
    schedule = schedule_of(optimizer, settings, updates_per_epoch=20)

    def rate_at(step: int) -> float:
        schedule.step_update(step)
        return float(optimizer.param_groups[0]["lr"])

    assert rate_at(0) == pytest.approx(0.4 * 0.05)
    assert rate_at(10) == pytest.approx(0.4 * 0.05 + (0.4 - 0.4 * 0.05) * 10 / 20)
    for step in (20, 100, 199):
        assert rate_at(step) == pytest.approx(0.2 * (1 + math.cos(math.pi * step / 200)))


def test_an_exponential_and_a_constant_schedule() -> None:
    for kind, after_three in (("exponential", 0.5**3), ("constant", 1.0)):
        settings = TrainSettings.model_validate(
            {"schedule": kind, "decay_rate": 0.5, "learning_rate": 1.0, "epochs": 10, "warmup_epochs": 0}
        )
        optimizer = optimizer_of(build(CHILD), settings)
        schedule_of(optimizer, settings, updates_per_epoch=10).step_update(35)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(after_three), kind


def test_the_moving_average_is_that_of_its_formula() -> None:
    """With warm-up the decay after n updates is 1 - n^(-2/3), at most the recipe's (timm, after K. Crowson)."""
    network = nn.Linear(1, 1, bias=False)
    average = moving_average_of(network, TrainSettings(ema_decay=0.6))
    assert average is not None
    expected = 0.0
    for number, value in enumerate([4.0, 2.0, 8.0, 1.0, 5.0], start=1):
        network.weight.data.fill_(value)
        average.update(network, number)
        decay = 0.0 if number == 1 else min(0.6, 1 - number ** (-2 / 3))
        expected = decay * expected + (1 - decay) * value
    assert float(average.module.weight.detach()) == pytest.approx(expected)
    assert moving_average_of(network, TrainSettings(ema_decay=None)) is None


def test_stochastic_depth_leaves_out_residual_branches_in_training_alone() -> None:
    network = build(CHILD)
    residual = [block for block in network.modules() if isinstance(block, InvertedResidual) and block.residual]
    assert residual
    image = torch.randn(64, 3, 16, 16)
    with torch.no_grad(), stochastic_depth(network, 0.999):
        network.train()
        branch = residual[-1].project(torch.randn(64, residual[-1].project.conv.in_channels, 8, 8))
        assert int((branch.flatten(1) == 0).all(1).sum()) > 55
        network.eval()
        whole = network(image)
    assert torch.equal(network(image), whole)
    assert not any(block.project._forward_hooks for block in residual)
