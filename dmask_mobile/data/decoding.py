"""Decodes images as a person sees them: upright and in RGB, for any mode of the file."""

from __future__ import annotations

import errno
import math
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Formats that Pillow decodes itself; it treats MPO as a kind of JPEG. EPS is left out: Pillow passes it to Ghostscript.
Image.init()
FORMATS = tuple(
    name
    for name in (
        "JPEG",
        "PNG",
        "WEBP",
        "GIF",
        "BMP",
        "DIB",
        "TIFF",
        "PPM",
        "AVIF",
        "HEIF",
        "JPEG2000",
        "TGA",
        "QOI",
        "ICO",
    )
    if name in Image.OPEN
)
SUFFIXES = frozenset(
    f".{word}"
    for words in (
        "jpg jpeg jpe jfif mpo png apng webp gif bmp dib tif tiff",
        "pbm pgm ppm pnm avif avifs jp2 tga qoi ico heic heif hif",
    )
    for word in words.split()
)
MAX_PIXELS = (
    100_000_000  # of an image; the largest photographs of phones have 200 million and should be scaled down first
)
MAX_RATIO = 50  # of an image's sides: a longer side is cut before scaling
MAX_GREY = 65535
ROUNDING = 1e-6  # of a share that was itself computed from pixels
PAPER = (255, 255, 255)  # the background of transparent pixels


NO_FAULT_OF_DISKS = (None, errno.ENOENT, errno.EACCES, errno.EISDIR)  # Pillow's own errors have no error number


class BadImageError(Exception):
    """The reason why an image cannot be decoded; the caller adds the name of the image."""


def open_image(file: Path | bytes) -> Image.Image:
    """The image in a file, or in the content of a file; not yet decoded.

    Raises:
        BadImageError: if it is not an image in one of `FORMATS`, or has more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow has a different limit on pixels
            image = Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImageError(f"a decompression bomb: {error}") from error
    except Exception as error:  # Pillow's parsers raise many kinds of errors on damaged files
        if is_fault_of_machine(error):
            raise
        raise BadImageError(reason_of(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"it has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are allowed")
    return image


def as_seen(image: Image.Image) -> Image.Image:
    """The image upright and in RGB.

    The EXIF orientation is applied, 16-bit greyscale becomes 8-bit, transparent pixels are blended with white, and of
    an animation the first frame is used.

    Raises:
        BadImageError: if it cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about damaged metadata; the pixels may still be good
            return _rgb(ImageOps.exif_transpose(image))
    except BadImageError:
        raise
    except Exception as error:  # as in `open_image`
        if is_fault_of_machine(error):
            raise
        raise BadImageError(reason_of(error)) from error


def resized_to(resolution: int, crop: float) -> int:
    """The pixels of the shorter side of which the central ``resolution`` pixels are the share ``crop``, as in timm.

    >>> resized_to(224, 0.875)
    256
    """
    return max(resolution, math.floor(resolution / crop + ROUNDING))


def square(image: Image.Image, resolution: int, resized: int | None = None) -> np.ndarray:
    """An upright RGB image as a square (3, resolution, resolution) uint8, by the rule for both training and apps.

    Its shorter side is scaled to ``resized`` pixels (default: ``resolution``) by Pillow's bilinear filter with
    antialiasing, and the central square is cut out. `dmask_mobile.records.artifact.Preprocessing` describes the same
    rule for apps.
    """
    shorter, longer = sorted(image.size)
    if longer > MAX_RATIO * shorter:  # scaling all of 1 x 1,000,000 pixels would take gigabytes
        image = _middle(image, min(image.width, MAX_RATIO * shorter), min(image.height, MAX_RATIO * shorter))
        longer = MAX_RATIO * shorter
    short_side = resized or resolution
    long_side = int(short_side * longer / shorter)
    size = (long_side, short_side) if image.width > image.height else (short_side, long_side)
    scaled = image.resize(size, Image.Resampling.BILINEAR) if image.size != size else image
    return np.asarray(_middle(scaled, resolution, resolution)).transpose(2, 0, 1).copy()


def read_square(file: Path | bytes, resolution: int, resized: int | None = None) -> np.ndarray:
    """The image in a file, or in the content of a file, upright and made square by `square`.

    Raises:
        BadImageError: if it cannot be decoded.
    """
    return square(as_seen(open_image(file)), resolution, resized)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The centre of an image; half pixels are rounded to even."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _rgb(image: Image.Image) -> Image.Image:
    if not image.width or not image.height:
        raise BadImageError("it has no pixels")
    if image.mode.startswith("I"):  # 16 bits, or 32 bits that contain 16-bit values
        values = np.asarray(image, np.float64)
        if values.min() < 0 or values.max() > MAX_GREY:
            raise BadImageError(f"its grey levels are outside 0 to {MAX_GREY}")
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")  # 65535 / 255
    if image.mode == "F":
        values = np.asarray(image, np.float64)
        if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise BadImageError("its pixels are floating-point numbers outside 0 to 255")
        return Image.fromarray((values * (255 if values.max(initial=0) <= 1 else 1)).round().astype(np.uint8)).convert(
            "RGB"
        )
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        layered = image.convert("RGBA")
        paper = Image.new("RGBA", layered.size, (*PAPER, 255))
        return Image.alpha_composite(paper, layered).convert("RGB")
    return image.convert("RGB")


def is_fault_of_machine(error: Exception) -> bool:
    """Whether memory or a disk failed, which does not mean that the image is damaged."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in NO_FAULT_OF_DISKS)


def reason_of(error: Exception) -> str:
    """The reason why an image cannot be decoded, in one line."""
    words = " ".join(str(error).split())
    if "cannot identify image file" in words:
        return f"not an image in a supported format ({', '.join(FORMATS)})"
    return words or type(error).__name__
