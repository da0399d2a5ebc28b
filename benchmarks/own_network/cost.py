"""What a comparison will cost: extrapolated from a few steps of the given network."""

from __future__ import annotations

from typing import Any

from torch import nn

from dmask_mobile.data.images import ImageData
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.training.estimate import estimate_training
from dmask_mobile.training.evaluation import chunks_of
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer
from own_network.plan import Plan

SECONDS_A_MODEL = 1.5  # to convert and measure a network
SHARED = 0.25  # of a pass: what a search takes for one changed option, most of it computed once for all
SLOWER = 1.6  # training against inference: how much less a smaller network saves


def estimated_seconds(
    plan: Plan, images: dict[str, Any], data: ImageData, network: nn.Module, space: SearchSpace
) -> dict[str, float]:
    """CPU seconds by kind of work for the whole plan on this machine; the network is changed by two steps."""
    trainer = Trainer(network, data, plan.fine_tuning(0), Machine())
    training, _ = estimate_training(trainer).steps
    _, validation = estimate_training(trainer).steps  # the first one allocates memory
    step = training.seconds_per_step / plan.batch_size
    forward = validation.seconds_per_step / len(chunks_of(data.val, data)[0])
    count, seeds, smaller = len(data.train), plan.seeds, min(1.0, SLOWER * plan.budget)
    tuning = count * plan.epochs * step + len(data.val) * (plan.epochs + 1) * forward
    settings = plan.searching(space, 0)
    changes = sum(len(decision.options) - 1 for decision in space.decisions)
    images_a_change = min(settings.evaluation_images, settings.gate_share * count)
    searching = settings.epochs * changes * images_a_change * SHARED * forward
    by_contender = {
        "original": tuning,
        "ours": searching + smaller * tuning,
        "uniform": smaller * tuning,
        "uniform_resolution": smaller * tuning,
        "macs": searching + smaller * tuning,
        "scratch": searching + smaller * tuning,
    }
    networks = sum(2 for contender in plan.contenders if contender in ("ours", "macs")) * seeds * 5 + 10
    tested = sum(1.0 if contender == "original" else plan.budget for contender in plan.contenders)
    found = {"given network": tuning * plan.given_epochs / plan.epochs}
    found["table"] = 0.0 if plan.table else 60 * plan.profile_minutes
    found |= {contender: seeds * by_contender[contender] for contender in plan.contenders}
    found["measuring"] = SECONDS_A_MODEL * networks
    found["test"] = seeds * tested * images["images"]["test"] * forward
    return found
