"""The gradient of a network's loss on images, for the importance of its channels (Molchanov et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def loss_gradients(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], has_classes: bool
) -> dict[str, Tensor]:
    """The mean gradient of the cross-entropy by parameter, the network being in evaluation mode.

    Args:
        network: the network.
        batches: images as the network sees them, and labels.
        has_classes: whether the labels are the network's classes; else its own answers take their place.
    """
    network = network.eval()
    network.zero_grad()
    count = 0
    for images, labels in batches:
        scores = network(images)
        loss = F.cross_entropy(scores, labels if has_classes else scores.argmax(1), reduction="sum")
        torch.autograd.backward(loss)
        count += len(images)
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad / max(count, 1)
        for name, value in network.named_parameters()
    }
