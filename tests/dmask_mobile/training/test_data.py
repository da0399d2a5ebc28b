from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dmask_mobile.errors import DmaskError
from dmask_mobile.training.data import FASHION_MNIST_FOLDER, load_data, normalized, split_for_search
from dmask_mobile.training.train import batches


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [24, 32])
def test_glyphs_at_any_resolution(resolution: int) -> None:
    data = load_data("glyphs", resolution)
    assert data.train.images.shape[1:] == (3, resolution, resolution)
    assert data.class_names == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert len(data.train.labels) + len(data.val.labels) > 10_000
    assert set(data.train.labels.tolist()) == set(data.val.labels.tolist()) == set(range(36))
    assert torch.equal(load_data("glyphs", resolution).train.images, data.train.images)


def test_normalized_training_images_have_mean_0_and_deviation_1() -> None:
    data = load_data("glyphs", 24)
    pixels = normalized(data.train.images, data)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    data = load_data("fashion-mnist", 32)
    assert data.train.images.shape == (60_000, 3, 32, 32)
    assert data.val.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.val.labels).tolist() == [1000] * 10
    assert data.class_names[9] == "Ankle boot"
    assert data.mean[0] == pytest.approx(0.2860, abs=2e-3)  # the data set's published mean at 28 px


def test_fashion_mnist_elsewhere_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"four .* files, found 0 .*; install Debian's package dataset-fashion-mnist"):
        load_data(f"fashion-mnist:{tmp_path}", 32)


def test_fonts_elsewhere_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="no TrueType font with digits and capitals"):
        load_data(f"glyphs:{tmp_path}", 32)


def folder_of_images(root: Path, parts: list[str]) -> Path:
    for part in parts:
        for index, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (40, 30), (255 * index, number, 0)).save(root / part / name / f"{number}.png")
    return root


def test_folder_with_and_without_a_split(tmp_path: Path) -> None:
    split = load_data(str(folder_of_images(tmp_path / "a", ["train", "val"])), 16)
    assert (len(split.train.labels), len(split.val.labels)) == (20, 20)
    whole = load_data(str(folder_of_images(tmp_path / "b", [""])), 16)
    assert (len(whole.train.labels), len(whole.val.labels)) == (16, 4)
    assert whole.class_names == ("cat", "dog")
    assert whole.train.images[whole.train.labels == 1][:, 0].min() == 255


def test_search_split_is_80_to_20_without_overlap() -> None:
    data = load_data("glyphs", 24)
    for_weights, for_gates = split_for_search(data.train, 0.2, torch.Generator().manual_seed(0))
    total = len(data.train.labels)
    assert len(for_gates.labels) == pytest.approx(0.2 * total, abs=1)
    joined = torch.cat([for_weights.images, for_gates.images]).flatten(1).to(torch.int64)
    key = torch.randint(0, 2**31, (joined.shape[1],), generator=torch.Generator().manual_seed(1))
    originals = data.train.images.flatten(1).to(torch.int64)
    assert torch.equal((joined @ key).sort().values, (originals @ key).sort().values)


def test_batches_depend_on_their_seed_alone() -> None:
    data = load_data("glyphs", 24)
    first = next(iter(batches(data.train, data, 8, seed=3)))
    torch.rand(5)  # somebody else draws
    again = next(iter(batches(data.train, data, 8, seed=3)))
    other = next(iter(batches(data.train, data, 8, seed=4)))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
