"""How a photograph becomes a square image of the data set: the one rule of training, verification and apps."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is read, whatever a file is called: for others, EPS say, Pillow starts a program of its own."""


def open_photo(file: str | Path | IO[bytes]) -> Image.Image:
    """The pixels of an image file as they are stored (an orientation in its EXIF data is not applied), as RGB.

    Raises:
        OSError: when the file is missing, damaged or none of `PHOTO_FORMATS`.
    """
    with Image.open(file, formats=PHOTO_FORMATS) as photo:
        return photo.convert("RGB")


def to_square(resolution: int) -> nn.Module:
    """Makes a photo (3, resolution, resolution) uint8: its shorter side scaled to ``resolution``, its middle cut out.

    The filter is Pillow's bilinear one: where it scales down, it averages over all pixels below (antialiased).
    `dmask_mobile.records.artifact.Preprocessing` tells apps the same.
    """
    return nn.Sequential(v2.Resize(resolution, antialias=True), v2.CenterCrop(resolution), v2.PILToTensor())


def read_photo(file: str | Path | IO[bytes], resolution: int) -> Tensor:
    """The image in a file, (3, resolution, resolution) uint8; see `open_photo` and `to_square`."""
    image: Tensor = to_square(resolution)(open_photo(file))
    return image
