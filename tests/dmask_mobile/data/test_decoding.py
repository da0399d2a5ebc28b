"""Pixels as a person sees them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmask_mobile.data.decoding import BadImageError, as_seen, open_image, read_square, resized_to, square

TELLING = np.zeros((20, 30, 3), np.uint8)
TELLING[:10, :15] = (255, 0, 0)  # red at the top left
TELLING[10:, 15:] = (0, 0, 255)  # blue at the bottom right
# What a viewer does for each EXIF orientation (Exif 2.32, tag 0x0112), as an operation on the stored pixels.
STORED_FOR = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),  # stored lying on its left side: shown turned clockwise
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    content = BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def rgb_of(content: bytes) -> np.ndarray:
    image = as_seen(open_image(content))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("orientation", STORED_FOR)
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_FOR[orientation](TELLING)))
    options = {"lossless": True} if file_format == "WEBP" else {}
    found = rgb_of(saved(stored, file_format, exif=exif, **options))
    assert np.array_equal(found, TELLING)


def test_sixteen_bits_of_grey_become_eight() -> None:
    values = np.array([[0, 257, 257 * 100, 65535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        found = rgb_of(saved(Image.fromarray(values), file_format))
        assert found[0, :, 0].tolist() == [0, 1, 100, 255]


def test_dark_images_of_sixteen_bits_stay_dark() -> None:
    assert rgb_of(saved(Image.fromarray(np.full((2, 2), 200, np.uint16)), "PNG")).max() == 1
    with pytest.raises(BadImageError, match="grey levels are outside 0 to 65535"):
        as_seen(Image.fromarray(np.full((2, 2), 2**30, np.int32)))


def test_an_image_without_pixels_is_bad() -> None:
    with pytest.raises(BadImageError, match="has no pixels"):
        as_seen(Image.new("RGB", (0, 4)))


def test_transparent_pixels_lie_on_white() -> None:
    layered = Image.fromarray(np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], np.uint8))
    assert rgb_of(saved(layered, "PNG"))[0].tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    assert rgb_of(saved(palette, "PNG"))[0].tolist() == [[9, 9, 9], [1, 2, 3]]
    assert rgb_of(saved(palette, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [1, 2, 3]]


@pytest.mark.parametrize(("mode", "file_format"), [("CMYK", "TIFF"), ("1", "PNG"), ("L", "JPEG"), ("LA", "PNG")])
def test_other_modes_become_rgb(mode: str, file_format: str) -> None:
    white = Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode)
    assert (rgb_of(saved(white, file_format)) >= 254).all()


def test_floating_point_pixels_are_those_of_a_scale_that_is_known() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert rgb_of(saved(unit, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(BadImageError, match="floating-point numbers outside 0 to 255"):
        rgb_of(saved(Image.fromarray(np.array([[-3.0, 1000.0]], np.float32)), "TIFF"))


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    assert rgb_of(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image in a supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image in a supported format"),
        (b"%PDF-1.4", "not an image in a supported format"),
        (saved(Image.new("RGB", (50, 50)), "PNG")[:60], "truncated"),
        (saved(Image.effect_noise((64, 64), 99), "JPEG")[:1500], "truncated|broken"),
    ],
)
def test_what_is_no_image_is_bad(content: bytes, message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        rgb_of(content)


def test_a_decompression_bomb_is_bad() -> None:
    header = bytearray(saved(Image.new("L", (10, 10)), "PNG"))
    import struct
    import zlib

    header[16:24] = struct.pack(">2I", 60_000, 60_000)
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    with pytest.raises(BadImageError, match=r"bomb|60000 x 60000 pixels; at most 100,000,000"):
        open_image(bytes(header))


def test_a_very_long_image_needs_little_memory(tmp_path: Path) -> None:
    Image.new("L", (1, 1_000_000), 77).save(tmp_path / "long.png")
    found = square(as_seen(open_image(tmp_path / "long.png")), 224)
    assert found.shape == (3, 224, 224)
    assert (found == 77).all()


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
    assert np.array_equal(read_square(tmp_path / "a.png", 40).transpose(1, 2, 0), expected)


def test_the_middle_share_of_the_shorter_side(tmp_path: Path) -> None:
    original = photo(80, 60)
    original.save(tmp_path / "a.png")
    expected = np.asarray(original.resize((66, 50), Image.Resampling.BILINEAR).crop((13, 5, 53, 45)))
    resized = resized_to(40, 0.8)
    assert resized == 50
    assert np.array_equal(read_square(tmp_path / "a.png", 40, resized).transpose(1, 2, 0), expected)
    assert [resized_to(size, share) for size, share in ((224, 0.875), (224, 224 / 232), (32, 1.0))] == [256, 232, 32]


def triangle(length: int, scaled: int) -> np.ndarray:
    """The weights (scaled, length) by the rule of `Preprocessing`, which apps use."""
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
    found = read_square(tmp_path / "a.png", resolution).transpose(1, 2, 0).astype(float)
    assert np.abs(found - expected).max() <= 1
