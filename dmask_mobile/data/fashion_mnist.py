"""``fashion-mnist[:FOLDER]``: Debian's package, or any folder that contains the four files."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from dmask_mobile.data.arrays import ArrayExamples
from dmask_mobile.data.source import Examples
from dmask_mobile.errors import DmaskError

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": "train", "test": "t10k"}


class FashionMnistSource:
    """60,000 training and 10,000 test images of clothes, 28 x 28 greyscale (Xiao et al., 2017).

    Args:
        folder: the folder of the four ``*-ubyte.gz`` files; empty for Debian's package dataset-fashion-mnist.

    Raises:
        DmaskError: if a file is missing.
    """

    class_names = tuple(FashionMNIST.classes)
    flip = True

    def __init__(self, folder: str = "") -> None:
        self.folder = Path(folder).resolve() if folder else FASHION_MNIST_FOLDER
        files = [path for start in FILES.values() for path in (self._images(start), self._labels(start))]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise DmaskError(
                f"Fashion-MNIST has four '*-ubyte.gz' files, but '{missing[0]}' is missing in '{self.folder}'",
                "install Debian's package dataset-fashion-mnist or give the folder: fashion-mnist:FOLDER",
            )

    def splits(self) -> Mapping[str, Examples]:
        """``train`` and ``test``."""
        return {split: self._read(start) for split, start in FILES.items()}

    def _read(self, start: str) -> ArrayExamples:
        try:
            images, labels = (gzip.decompress(path.read_bytes()) for path in (self._images(start), self._labels(start)))
            count, height, width = struct.unpack(">3I", images[4:16])
            pixels = np.frombuffer(images, np.uint8, count * height * width, 16).reshape(count, height, width)
            numbers = np.frombuffer(labels, np.uint8, count, 8)
        except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
            raise DmaskError(
                f"'{self._images(start)}' is damaged: {error}", "install or download Fashion-MNIST again"
            ) from error
        return ArrayExamples(pixels, numbers.tolist(), hashlib.sha256(images).hexdigest()[:16])

    def _images(self, start: str) -> Path:
        return self.folder / f"{start}-images-idx3-ubyte.gz"

    def _labels(self, start: str) -> Path:
        return self.folder / f"{start}-labels-idx1-ubyte.gz"
