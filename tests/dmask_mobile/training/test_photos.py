"""Photographs as training reads them, against Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from dmask_mobile.training.photos import open_photo, read_photo


def photo(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(values).resize((width, height))


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((80, 60), (53, 40), (6, 0, 46, 40)),  # 6.5 -> 6
        ((60, 80), (40, 53), (0, 6, 40, 46)),
        ((24, 16), (60, 40), (10, 0, 50, 40)),  # enlarged
        ((40, 40), (40, 40), (0, 0, 40, 40)),
    ],
)
def test_the_middle_square_of_the_shorter_side(
    size: tuple[int, int], resized: tuple[int, int], box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    original = photo(*size)
    original.save(tmp_path / "a.png")
    expected = np.asarray(original.resize(resized, Image.Resampling.BILINEAR).crop(box))
    assert np.array_equal(read_photo(tmp_path / "a.png", 40).permute(1, 2, 0).numpy(), expected)


def test_an_orientation_in_exif_data_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    photo(80, 64).save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == (80, 64)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert open_photo(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)


def test_a_program_under_the_name_of_an_image_is_not_run(tmp_path: Path) -> None:
    """Pillow gives EPS to Ghostscript, whatever the file is called."""
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_text(eps)
    with pytest.raises(UnidentifiedImageError):
        open_photo(tmp_path / "a.png")


def triangle(length: int, scaled: int) -> np.ndarray:
    """The weights (scaled, length) that `Preprocessing` says: apps compute them so."""
    reach = max(length / scaled, 1.0)
    centers = (np.arange(scaled)[:, None] + 0.5) * length / scaled
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centers) / reach)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(400, 300), (301, 500), (90, 64), (50, 30)])
def test_the_description_says_what_training_does(size: tuple[int, int], tmp_path: Path) -> None:
    """The steps of `Preprocessing`'s docstring, to one level of 255."""
    original, resolution = photo(*size), 64
    original.save(tmp_path / "a.png")
    width, height = (resolution * side // min(size) for side in size)
    pixels = np.asarray(original, np.float64)
    narrow = np.floor(np.einsum("xk,ykc->yxc", triangle(size[0], width), pixels) + 0.5)
    scaled = np.floor(np.einsum("yk,kxc->yxc", triangle(size[1], height), narrow) + 0.5)
    left, upper = (round((side - resolution) / 2) for side in (width, height))
    expected = scaled[upper : upper + resolution, left : left + resolution]
    found = read_photo(tmp_path / "a.png", resolution).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1
