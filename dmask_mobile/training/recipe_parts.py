"""Makes parts of timm from a recipe: optimizer, schedule, moving average, stochastic depth."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import drop_path
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from dmask_mobile.nets.blocks import InvertedResidual
from dmask_mobile.records.recipe import RecipeFields

FIRST_RATE = 0.05  # as a share of the learning rate, at the first step of the warm-up
LONGEST_WARMUP = 0.2  # as a share of a training
RMSPROP_EPSILON = 1e-3  # as in timm's trainings of MobileNets; with its default, 1e-10, all steps have the same size


def optimizer_of(network: nn.Module, recipe: RecipeFields) -> torch.optim.Optimizer:
    """The optimizer of all parameters; norms and biases have no weight decay."""
    without_momentum = recipe.optimizer == "sgd" and recipe.momentum == 0
    options = {"eps": RMSPROP_EPSILON} if recipe.optimizer == "rmsproptf" else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        _parameter_groups(network, recipe),
        "momentum" if without_momentum else recipe.optimizer,  # Nesterov's method needs momentum
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        **options,
    )
    return optimizer


def _parameter_groups(network: nn.Module, recipe: RecipeFields) -> list[dict[str, Any]]:
    """The groups of timm, without and with weight decay, and a third one: biases of batch norms have their own rate.

    timm's schedules multiply the learning rate of a group by its ``lr_scale``.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    biases = [norm.bias for norm in norms if norm.bias is not None]
    apart = {id(bias) for bias in biases}
    groups: list[dict[str, Any]] = param_groups_weight_decay(network, recipe.weight_decay)
    others = [{**group, "params": [each for each in group["params"] if id(each) not in apart]} for group in groups]
    return [*others, {"params": biases, "weight_decay": 0.0, "lr_scale": recipe.norm_bias_rate}]


def schedule_of(optimizer: torch.optim.Optimizer, recipe: RecipeFields, updates_per_epoch: int) -> Scheduler:
    """The learning rate by optimizer step: ``step_update(number)``. The warm-up is at most a fifth of the training."""
    kind, rate = {
        "cosine": ("cosine", 0.1),
        "exponential": ("step", recipe.decay_rate),
        "constant": ("step", 1.0),
    }[recipe.schedule]
    schedule, _ = create_scheduler_v2(
        optimizer,
        kind,
        num_epochs=recipe.epochs,
        decay_epochs=1,
        decay_rate=rate,
        warmup_epochs=min(recipe.warmup_epochs, LONGEST_WARMUP * recipe.epochs),
        warmup_lr=FIRST_RATE * recipe.learning_rate,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return schedule


def moving_average_of(network: nn.Module, recipe: RecipeFields) -> ModelEmaV3 | None:
    """The moving average of the weights; its decay grows to the value in the recipe. None if the recipe has none."""
    return None if recipe.ema_decay is None else ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)


@contextmanager
def stochastic_depth(network: nn.Module, probability: float) -> Iterator[None]:
    """A context in which training leaves out residual branches at random, later blocks more often than early ones."""
    residual = [block for block in network.modules() if isinstance(block, InvertedResidual) and block.residual]
    handles = [
        block.project.register_forward_hook(functools.partial(_dropped, probability * number / len(residual)))
        for number, block in enumerate(residual if probability else [], start=1)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dropped(probability: float, module: nn.Module, _: Any, output: Tensor) -> Tensor:
    dropped: Tensor = drop_path(output, probability, module.training)
    return dropped
