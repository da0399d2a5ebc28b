"""How well a network does on images: each image counts exactly once, however many processes share them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmask_mobile.data.images import ImageData, ImageSet, Normalization, normalized
from dmask_mobile.training.machine import Machine

BATCH_SIZE = 500


def evaluate(
    network: nn.Module,
    images: ImageSet,
    data: ImageData,
    batch_size: int = BATCH_SIZE,
    *,
    machine: Machine | None = None,
) -> float:
    """Top-1 accuracy in 0..1 of ``network`` in evaluation mode."""
    confusion_KK = confusion_of(network, images, data, data.classes, batch_size, machine=machine)
    return int(confusion_KK.diagonal().sum()) / len(images)


@torch.no_grad()
def confusion_of(
    network: nn.Module,
    images: ImageSet,
    data: Normalization,
    classes: int,
    batch_size: int = BATCH_SIZE,
    *,
    machine: Machine | None = None,
) -> Tensor:
    """How often each class (rows) was taken for each class (columns) by ``network`` in evaluation mode, (K, K) int64.

    With a ``machine`` of several processes each of them takes a part of the images, and all get the sum.
    """
    network.eval()
    device = next(network.parameters()).device
    confusion_KK = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    chunks = [range(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]
    if machine is not None:
        chunks = chunks[machine.share.rank :: machine.share.processes]
    for pixels, labels in images.batches(chunks):
        predicted = network(normalized(pixels.to(device), data)).argmax(1)
        cells = labels.to(device) * classes + predicted
        confusion_KK += torch.bincount(cells, minlength=classes**2).view(classes, classes)
    return confusion_KK.cpu() if machine is None else machine.total(confusion_KK)
