"""Applies an `Augmentation` to training images; all random numbers depend on a seed.

Shifts, crops and mirroring are drawn for a whole batch and applied to it at once: applied to single images, they would
take longer than a training step of a small network. Operations on colours and erasing are torchvision's; they are
applied to single images when these are decoded, in the worker processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from dmask_mobile.records.recipe import Augmentation

ASPECTS = (3 / 4, 4 / 3)  # of a random crop
MAX_SEED = 2**63  # torch accepts no larger seed; seeds derived from other seeds wrap around


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which random numbers from torch's global CPU generator depend only on ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % MAX_SEED)
        yield


@dataclass(frozen=True)
class ByImage:
    """The part of an augmentation that is applied to single images: from (3, R, R) uint8 to the same shape and type."""

    magnitude: int
    erasing: float

    def __call__(self, image_3RR: Tensor, seed: int) -> Tensor:
        steps = []
        if self.magnitude:
            steps.append(v2.RandAugment(num_ops=2, magnitude=self.magnitude))
        if self.erasing:
            steps.append(v2.RandomErasing(self.erasing))
        with seeded(seed):
            for step in steps:
                image_3RR = step(image_3RR)
        return image_3RR


def by_image(augmentation: Augmentation) -> ByImage | None:
    """The operations on single images; None if there are none."""
    if not augmentation.is_by_image:
        return None
    return ByImage(augmentation.rand_augment, augmentation.erasing)


class Placement(NamedTuple):
    """The geometry of the images of a batch: either the source pixels of rows and columns, or crops.

    ``rows_NR``, ``columns_NR``: pixels of the source. ``crops_N4``: height and width as shares of the side, centre from
    -1 to 1 (y, x). ``mirrored_N``: applied to both.
    """

    rows_NR: Tensor | None
    columns_NR: Tensor | None
    crops_N4: Tensor | None
    mirrored_N: Tensor

    def part(self, places: Tensor) -> Placement:
        """The placement of the images at ``places``."""
        return Placement(*(None if value is None else value[places] for value in self))  # type: ignore[arg-type]


def placement(augmentation: Augmentation, size: int, count: int, generator: torch.Generator) -> Placement:
    """A random placement for ``count`` images of ``size`` x ``size`` pixels; none of them is mirrored."""
    mirrored_N = torch.zeros(count, dtype=torch.bool)
    if augmentation.crop is not None:
        return Placement(None, None, _crops(augmentation.crop, count, generator), mirrored_N)
    most = round(size * augmentation.shift)
    shifts_2N1 = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    rows_NR, columns_NR = (torch.arange(size) + shifts_2N1).clamp(0, size - 1)
    return Placement(rows_NR, columns_NR, None, mirrored_N)


def _crops(area: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """Random crops (N, 4): height, width, centre y, centre x; a crop longer than the side is reduced to the side."""
    uniform_4N = torch.rand((4, count), generator=generator)
    areas_N = area[0] + (area[1] - area[0]) * uniform_4N[0]
    low, high = map(math.log, ASPECTS)
    aspects_N = torch.exp(low + (high - low) * uniform_4N[1])
    heights_N = (areas_N / aspects_N).sqrt().clamp_max(1)
    widths_N = (areas_N * aspects_N).sqrt().clamp_max(1)
    y_N, x_N = (2 * uniform_4N[2:] - 1) * (1 - torch.stack([heights_N, widths_N]))
    return torch.stack([heights_N, widths_N, y_N, x_N], dim=1)


def placed(images_N3RR: Tensor, where: Placement) -> Tensor:
    """The images with their placement applied, on the same device; uint8 stays uint8."""
    if where.crops_N4 is not None:
        return _cropped(images_N3RR, where.crops_N4, where.mirrored_N)
    assert where.rows_NR is not None
    assert where.columns_NR is not None
    columns_NR = torch.where(where.mirrored_N[:, None], where.columns_NR.flip(1), where.columns_NR)
    device = images_N3RR.device
    count, channels, _, _ = images_N3RR.shape
    return images_N3RR[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        where.rows_NR.to(device)[:, None, :, None],
        columns_NR.to(device)[:, None, None, :],
    ]


def _cropped(images_N3RR: Tensor, crops_N4: Tensor, mirrored_N: Tensor) -> Tensor:
    """The crop of each image, scaled to the full size (bilinear)."""
    heights_N, widths_N, y_N, x_N = crops_N4.unbind(1)
    signs_N = torch.where(mirrored_N, -1.0, 1.0)
    zero_N = torch.zeros_like(y_N)
    theta_N23 = torch.stack(
        [torch.stack([widths_N * signs_N, zero_N, x_N], 1), torch.stack([zero_N, heights_N, y_N], 1)], dim=1
    ).to(images_N3RR.device)
    grid = F.affine_grid(theta_N23, list(images_N3RR.shape), align_corners=False)
    moved = F.grid_sample(images_N3RR.float(), grid, padding_mode="border", align_corners=False)
    return moved.round_().clamp_(0, 255).to(images_N3RR.dtype)


def mixed(
    images_NCHW: Tensor, labels_N: Tensor, classes: int, augmentation: Augmentation, seed: int
) -> tuple[Tensor, Tensor]:
    """Images and soft labels (N, classes) after mixup or cutmix; unchanged if the augmentation has neither."""
    choices = []
    if augmentation.mixup:
        choices.append(v2.MixUp(alpha=augmentation.mixup, num_classes=classes))
    if augmentation.cutmix:
        choices.append(v2.CutMix(alpha=augmentation.cutmix, num_classes=classes))
    if not choices:
        return images_NCHW, labels_N
    with seeded(seed):
        images, labels = v2.RandomChoice(choices)(images_NCHW, labels_N)
    return images, labels
