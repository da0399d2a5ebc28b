"""Images that exist as arrays: rendered, or read from one file that contains all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class ArrayExamples:
    """Decoded images and their labels.

    Args:
        images: (N, H, W) greyscale or (N, H, W, 3) RGB, uint8.
        labels: one for each image.
        origin: a text that identifies the data, used in names of images.
    """

    images: np.ndarray
    labels: Sequence[int]
    origin: str

    def image(self, index: int) -> Image.Image:
        """See `Examples`."""
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        """See `Examples`."""
        return f"{self.origin}, image {index}"
