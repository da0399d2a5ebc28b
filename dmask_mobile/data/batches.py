"""Training batches: order and augmentation depend on a seed alone, whatever reads the images and wherever it starts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dmask_mobile.data.images import ImageData, ImageSet, normalized

SHIFT_SHARE = 8  # images are shifted by up to an eighth of their side
SEEDS_A_BATCH = 1_000_003
MAX_SEED = 2**63  # torch takes no larger one; seeds that are made from seeds wrap around


def num_batches(images: ImageSet, batch_size: int) -> int:
    """Batches of an epoch: full ones only, or one that is smaller."""
    return max(1, len(images) // batch_size)


def batches(
    images: ImageSet, data: ImageData, batch_size: int, seed: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented, normalized training batches from number ``start`` on.

    ``seed`` fixes their order and augmentation, whatever ``start`` is and however many workers read them.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed % MAX_SEED))
    wanted = [chunk.tolist() for chunk in torch.split(order, batch_size)][start : num_batches(images, batch_size)]
    for number, (pixels_N3RR, labels_N) in enumerate(images.batches(wanted), start):
        generator = torch.Generator().manual_seed((seed * SEEDS_A_BATCH + number) % MAX_SEED)  # each by itself
        yield normalized(augmented(pixels_N3RR, data.flip, generator), data), labels_N


def augmented(images_N3RR: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to an eighth of its side, its edge repeated, and with ``flip`` half of them mirrored.

    The whole batch at once: image by image the same costs more than a training step of a small network.
    """
    count, channels, size, _ = images_N3RR.shape
    most = max(1, size // SHIFT_SHARE)
    shifts_2N1 = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    rows_NR, columns_NR = (torch.arange(size) + shifts_2N1).clamp(0, size - 1)
    if flip:
        mirrored_N1 = torch.rand((count, 1), generator=generator) < 0.5
        columns_NR = torch.where(mirrored_N1, columns_NR.flip(1), columns_NR)
    return images_N3RR[
        torch.arange(count)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows_NR[:, None, :, None],
        columns_NR[:, None, None, :],
    ]
