"""Channels in falling order of importance, in a network that computes what it did."""

from __future__ import annotations

import pytest
import torch

from dmask_mobile.importing.gradients import loss_gradients
from dmask_mobile.importing.importance import axes_of, sorted_by_importance
from dmask_mobile.importing.network import import_network
from dmask_mobile.importing.proof import child_network, difference
from dmask_mobile.importing.space_around import space_around
from tests.dmask_mobile.importing.models import random_model
from tests.dmask_mobile.importing.test_network import HALVES, SIZE

SOURCES = ("torchvision:mobilenet_v3_small", "timm:mobilenetv4_conv_small_035", "timm:tf_efficientnetv2_b0")


@pytest.mark.parametrize("how", ["l1", "bn", "taylor"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_sorted_network_is_the_original(source: str, how: str) -> None:
    model = random_model(source)
    imported = import_network(model, SIZE, source)
    space = space_around(imported.child, source, HALVES)
    gradients = None
    if how == "taylor":
        images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
        gradients = loss_gradients(child_network(imported), [(images, torch.arange(4))], has_classes=True)
    state = sorted_by_importance(space, imported.state, gradients, how)
    assert any(not torch.equal(state[name], value) for name, value in imported.state.items())
    network = child_network(imported._replace(state=state))
    assert difference(model, network, imported.child.input_shape, torch.float64) <= 1e-6


def test_every_channel_that_a_mask_may_remove_is_ordered() -> None:
    """Each axis of each tensor is one of a group, or that of the image, of the classes, or of a depthwise kernel."""
    imported = import_network(random_model(SOURCES[0]), SIZE, "v3")
    space = space_around(imported.child, "v3", HALVES)
    ordered = {(axis.tensor, axis.axis) for axis in axes_of(space)}
    free = {(name, axis) for name, value in imported.state.items() for axis in range(min(2, value.dim()))} - ordered
    last = len(space.slots) - 1
    of_image_and_classes = {
        ("blocks.0.conv.weight", 1),
        (f"blocks.{last}.linear.weight", 0),
        (f"blocks.{last}.linear.bias", 0),
    }
    depthwise = {(f"blocks.{n}.depthwise.conv.weight", 1) for n in range(1, last - 1)}
    assert free == of_image_and_classes | depthwise


def test_hidden_channels_fall_in_importance() -> None:
    imported = import_network(random_model(SOURCES[0]), SIZE, "v3")
    space = space_around(imported.child, "v3", HALVES)
    by_norms = sorted_by_importance(space, imported.state, None, "bn")
    scales = by_norms["blocks.3.expand.norm.weight"].abs() / by_norms["blocks.3.expand.norm.weight"].abs().mean()
    scales = (
        scales
        + by_norms["blocks.3.depthwise.norm.weight"].abs() / by_norms["blocks.3.depthwise.norm.weight"].abs().mean()
    )
    assert (scales.diff() <= 1e-6).all()
    by_l1 = sorted_by_importance(space, imported.state, None, "l1")
    assert (by_l1["blocks.3.project.conv.weight"].abs().sum((0, 2, 3)).diff() <= 1e-6).all()
