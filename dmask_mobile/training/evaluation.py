"""The accuracy of a network on images. Each image counts exactly once, for any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmask_mobile.data.images import ImageData, ImageSet, Normalization, normalized
from dmask_mobile.training.machine import Machine

BATCH_SIZE, BATCH_PIXELS = (
    500,
    2**21,
)  # the lower limit counts: activations of large images need much memory


def chunks_of(images: ImageSet, data: Normalization) -> list[range]:
    """The ranges of images that are evaluated together."""
    size = data.resolution or images.resolution
    step = max(1, min(BATCH_SIZE, BATCH_PIXELS // size**2))
    return [range(start, min(start + step, len(images))) for start in range(0, len(images), step)]


def evaluate(
    network: nn.Module,
    images: ImageSet,
    data: ImageData,
    *,
    machine: Machine | None = None,
) -> float:
    """Top-1 accuracy in 0..1 of ``network`` in evaluation mode."""
    confusion_KK = confusion_of(network, images, data, data.classes, machine=machine)
    return int(confusion_KK.diagonal().sum()) / len(images)


@torch.no_grad()
def confusion_of(
    network: nn.Module,
    images: ImageSet,
    data: Normalization,
    classes: int,
    *,
    machine: Machine | None = None,
) -> Tensor:
    """The confusion matrix of ``network`` in evaluation mode: true classes (rows) and predicted ones, (K, K) int64.

    If ``machine`` has several processes, each evaluates a part of the images, and all receive the sum.
    """
    network.eval()
    device = next(network.parameters()).device
    confusion_KK = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    chunks = chunks_of(images, data)
    if machine is not None:
        chunks = chunks[machine.share.rank :: machine.share.processes]
    for pixels, labels in images.batches(chunks):
        predicted = network(normalized(pixels.to(device), data)).argmax(1)
        cells = labels.to(device) * classes + predicted
        confusion_KK += torch.bincount(cells, minlength=classes**2).view(classes, classes)
    return confusion_KK.cpu() if machine is None else machine.total(confusion_KK)
