"""Training batches. Order and augmentation depend only on a seed, not on the number of workers or the first batch.

A batch contains the images of one optimizer step over all processes. Each process gets its part of the batch, if
necessary in several pieces that are computed one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dmask_mobile.data.augmentation import MAX_SEED, by_image, mixed, placed, placement
from dmask_mobile.data.images import ImageData, ImageSet, normalized
from dmask_mobile.errors import DmaskError
from dmask_mobile.ranks import Share
from dmask_mobile.records.recipe import Augmentation

SEEDS_A_BATCH = 1_000_003
RANDOM_SHIFTS = Augmentation(mirroring="random")


class Batch(NamedTuple):
    """A piece of a batch: normalized images (N, 3, R, R), and labels (N,) or soft labels (N, classes).

    ``weight``: the factor for the sum over this piece. The mean over processes of ``sum * weight``, added up over the
    pieces, is the mean over the whole batch.
    """

    images: Tensor
    labels: Tensor
    weight: float


class Reading(NamedTuple):
    """How a process reads: its share among the processes, the pieces of a batch, and the device for the images."""

    share: Share = Share()
    pieces: int = 1
    device: torch.device = torch.device("cpu")


ALONE = Reading()


def num_batches(images: ImageSet, batch_size: int) -> int:
    """The number of batches in an epoch: only full batches count, or one smaller batch if there is no full one."""
    return max(1, len(images) // batch_size)


def check_batch(images: ImageSet, batch_size: int, reading: Reading) -> None:
    """Checks that every process gets at least two images of every piece, because batch norms need more than one.

    Raises:
        DmaskError: if a batch is too small for this.
    """
    smallest, parts = min(len(images), batch_size), reading.pieces * reading.share.processes
    if parts > 1 and smallest < 2 * parts:
        raise DmaskError(
            f"a batch of {smallest} images cannot be divided into {parts} parts of two images (processes times pieces)",
            "use a larger --batch-size, more images, fewer processes or less accumulation",
        )


def batches(
    images: ImageSet,
    data: ImageData,
    batch_size: int,
    seed: int,
    start: int = 0,
    *,
    augmentation: Augmentation = RANDOM_SHIFTS,
    epoch: int = 0,
    reading: Reading = ALONE,
) -> Iterator[Batch]:
    """The pieces of augmented, normalized training batches of one epoch, beginning with batch number ``start``.

    ``seed`` determines their order and augmentation, for any ``start`` and any number of workers and processes.
    ``epoch`` determines which half of the images alternating mirroring mirrors.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed % MAX_SEED))
    chunks = torch.split(order, batch_size)[start : num_batches(images, batch_size)]
    parts = reading.share.processes * reading.pieces
    of_rank = [
        torch.tensor_split(torch.arange(len(chunk)), parts)[reading.share.rank :: reading.share.processes]
        for chunk in chunks
    ]
    wanted = [chunk[places].tolist() for chunk, mine in zip(chunks, of_rank, strict=True) for places in mine]
    read = images.batches(wanted, by_image(augmentation), seed)
    for number, (chunk, mine) in enumerate(zip(chunks, of_rank, strict=True), start):
        batch_seed = (seed * SEEDS_A_BATCH + number) % MAX_SEED
        generator = torch.Generator().manual_seed(batch_seed)  # each batch has its own generator
        where = placement(augmentation, images.resolution, len(chunk), generator)
        if data.flip:
            where = where._replace(mirrored_N=_mirrored(len(images), chunk, augmentation, epoch, generator))
        for places in mine:
            pixels_N3RR, labels_N = next(read)
            pixels_N3RR = placed(pixels_N3RR.to(reading.device, non_blocking=True), where.part(places))
            inputs, labels = mixed(
                normalized(pixels_N3RR, data), labels_N.to(reading.device), data.classes, augmentation, batch_seed
            )
            yield Batch(inputs, labels, reading.share.processes / len(chunk))


def _mirrored(count: int, chunk: Tensor, augmentation: Augmentation, epoch: int, generator: torch.Generator) -> Tensor:
    """Which images of a batch are mirrored, (N,) bool; ``chunk``: their numbers among ``count`` images."""
    if augmentation.mirroring == "never":
        return torch.zeros(len(chunk), dtype=torch.bool)
    if augmentation.mirroring == "random":
        return torch.rand(len(chunk), generator=generator) < 0.5
    first_N = torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(0))
    return (first_N[chunk] + epoch) % 2 == 1
