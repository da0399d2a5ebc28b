from __future__ import annotations

import pytest
import torch
from torch import nn

from dmask_mobile.data.images import ImageSet, KnownNormalization
from dmask_mobile.training.evaluation import chunks_of, confusion_of


class Brightest(nn.Module):
    """Predicts the class of an image from its brightest channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return x_NCHW.mean((2, 3)) * self.weight


def images(count: int, size: int) -> ImageSet:
    labels = torch.arange(count) % 3
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    pixels[torch.arange(count), labels] = 200
    return ImageSet.in_memory(pixels, labels)


@pytest.mark.parametrize(("size", "resolution", "largest"), [(32, None, 500), (160, None, 81), (160, 32, 500)])
def test_large_images_are_evaluated_few_at_a_time(size: int, resolution: int | None, largest: int) -> None:
    few = images(1, size)
    many = few.subset(torch.zeros(1203, dtype=torch.int64))
    chunks = chunks_of(many, KnownNormalization((0.0,) * 3, (1.0,) * 3, resolution))
    assert max(map(len, chunks)) == largest
    assert [number for chunk in chunks for number in chunk] == list(range(1203))


def test_every_image_counts_once() -> None:
    found = confusion_of(Brightest(), images(1000, 4), KnownNormalization((0.0,) * 3, (1.0,) * 3, None), 3)
    assert torch.equal(found, torch.diag(torch.tensor([334, 333, 333])))
