from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dmask_mobile.data.augmentation import Placement, by_image, mixed, placed, placement
from dmask_mobile.data.batches import Reading, batches, check_batch
from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.errors import DmaskError
from dmask_mobile.ranks import Share
from dmask_mobile.records.recipe import Augmentation

NOTHING = Augmentation(shift=0, mirroring="never")


def numbered(count: int = 24, size: int = 8) -> ImageData:
    """Images whose pixels equal their number, except for a bright left column."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, size, size)
    images[..., 0] = 255
    examples = ImageSet.in_memory(images, torch.arange(count) % 4)
    return ImageData("numbered", "digest", tuple("abcd"), examples, examples, (0.0,) * 3, (1 / 255,) * 3, flip=True)


def number_of(image: torch.Tensor) -> int:
    return round(float(image[0, 0, 3]))


def is_mirrored(image: torch.Tensor) -> bool:
    return float(image[0, 0, -1]) > 200


def test_shifts_by_an_eighth_and_mirrored() -> None:
    """Each result is one of the 9 x 9 shifts of the padded image or its mirror image, each about equally often."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
    padded = F.pad(image.float(), (4, 4, 4, 4), mode="replicate").to(torch.uint8)
    expected = {}
    for top in range(9):
        for left in range(9):
            shifted = padded[:, top : top + 32, left : left + 32]
            expected[shifted.numpy().tobytes()] = (top, left, False)
            expected[shifted.flip(2).numpy().tobytes()] = (top, left, True)
    where = placement(Augmentation(), 32, 4000, generator)
    mirrored = torch.arange(4000) % 2 == 1
    found = placed(image.expand(4000, -1, -1, -1), where._replace(mirrored_N=mirrored))
    places = [expected[one.contiguous().numpy().tobytes()] for one in found]
    assert len(set(places)) == 162
    assert [mirrored for *_, mirrored in places] == [False, True] * 2000
    assert np.mean([top for top, *_ in places]) == pytest.approx(4, abs=0.2)


def test_a_crop_is_that_part_of_the_image() -> None:
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    no = torch.zeros(1, dtype=torch.bool)
    whole = Placement(None, None, torch.tensor([[1.0, 1, 0, 0]]), no)
    assert torch.equal(placed(image, whole), image)
    assert torch.equal(placed(image, whole._replace(mirrored_N=~no)), image.flip(3))
    top_right = placed(image, whole._replace(crops_N4=torch.tensor([[0.5, 0.5, -0.5, 0.5]])))
    expected = F.interpolate(image[:, :, :8, 8:].float(), scale_factor=2, mode="bilinear").round()
    inside = slice(1, -1)  # at its border a crop sees the pixels beside it
    assert torch.equal(top_right[:, :, inside, inside].float(), expected[:, :, inside, inside])


def test_random_crops_keep_their_area_and_lie_inside() -> None:
    augmentation = Augmentation(crop=(0.25, 0.5))
    where = placement(augmentation, 32, 2000, torch.Generator().manual_seed(0))
    assert where.crops_N4 is not None
    heights, widths, y, x = where.crops_N4.unbind(1)
    areas = heights * widths
    assert float(areas.min()) >= 0.25 - 1e-6
    assert float(areas.max()) <= 0.5 + 1e-6
    assert float(areas.mean()) == pytest.approx(0.375, abs=0.01)
    assert float((y.abs() + heights).max()) <= 1 + 1e-6
    assert float((x.abs() + widths).max()) <= 1 + 1e-6
    assert float((widths / heights).min()) >= 3 / 4 - 1e-6


def test_alternating_mirrors_every_image_in_every_other_epoch() -> None:
    data, alternating = numbered(), Augmentation(shift=0)
    seen: dict[int, list[bool]] = {}
    for epoch in range(4):
        for batch in batches(data.train, data, 8, epoch, augmentation=alternating, epoch=epoch):
            for image in batch.images:
                seen.setdefault(number_of(image), []).append(is_mirrored(image))
    assert all(turns[0] != turns[1] == turns[3] != turns[2] for turns in seen.values())
    assert 4 < sum(turns[0] for turns in seen.values()) < 20
    never = batches(data.train, data, 8, 0, augmentation=NOTHING)
    assert not any(is_mirrored(image) for batch in never for image in batch.images)


@pytest.mark.parametrize(("processes", "pieces"), [(1, 1), (2, 1), (3, 2)])
def test_processes_and_pieces_share_one_batch(processes: int, pieces: int) -> None:
    """Together they get the same augmented images as one process, and the weights add up to the batch's mean."""
    data, augmentation = numbered(), Augmentation(mirroring="random")
    (whole, *_) = batches(data.train, data, 20, 5, augmentation=augmentation)
    parts = []
    for rank in range(processes):
        reading = Reading(Share(rank, processes), pieces)
        made = batches(data.train, data, 20, 5, augmentation=augmentation, reading=reading)
        parts += list(made)[:pieces]
    images = torch.cat([part.images for part in parts])
    order, expected = images.flatten(1).sum(1).argsort(), whole.images.flatten(1).sum(1).argsort()
    assert torch.equal(images[order], whole.images[expected])
    assert sum(part.weight * len(part.labels) for part in parts) / processes == pytest.approx(1)


def test_a_batch_that_is_too_small_for_all_processes() -> None:
    with pytest.raises(
        DmaskError, match=r"a batch of 11 images cannot be divided into 6 parts of two images .* --batch-size"
    ):
        check_batch(numbered().train, 11, Reading(Share(0, 3), 2))


def test_operations_on_single_images_depend_on_seed_and_number_alone() -> None:
    change = by_image(Augmentation(rand_augment=9, erasing=1.0))
    assert change is not None
    assert by_image(Augmentation()) is None
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    before = torch.random.get_rng_state()
    first = change(image, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(change(image, 3), first)
    assert not torch.equal(change(image, 4), first)
    assert bool((first == 0).all(0).any())  # the erased rectangle


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers: int) -> None:
    data, augmentation = numbered(), Augmentation(rand_augment=9, erasing=0.5)
    alone = [batch.images for batch in batches(data.train, data, 8, 1, augmentation=augmentation)]
    data.train.pictures.workers = workers
    again = [batch.images for batch in batches(data.train, data, 8, 1, augmentation=augmentation)]
    rest = [batch.images for batch in batches(data.train, data, 8, 1, 2, augmentation=augmentation)]
    assert all(torch.equal(one, two) for one, two in zip(alone, again, strict=True))
    assert torch.equal(alone[2], rest[0])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_are_those_of_both_images(kind: str) -> None:
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    found, soft = mixed(images, labels, 4, Augmentation.model_validate({kind: 1.0}), seed=2)
    assert torch.allclose(soft.sum(1), torch.ones(8))
    assert found.shape == images.shape
    assert not torch.equal(found, images)
    share = soft[0, labels[0]]
    assert 0 < float(share) < 1
    if kind == "mixup":
        assert torch.allclose(found, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
    same, hard = mixed(images, labels, 4, Augmentation(), seed=2)
    assert same is images
    assert hard is labels
