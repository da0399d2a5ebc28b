"""The `DataSource` Protocol: what a set of labelled images must provide before any image is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from dmask_mobile.data.decoding import open_image
from dmask_mobile.errors import DmaskError


class Examples(Protocol):
    """The labelled images of one split. Each image is decoded only when it is requested."""

    @property
    def labels(self) -> Sequence[int]:
        """The class number of each image."""
        ...

    def image(self, index: int) -> Image.Image:
        """Image number ``index``, in any mode and orientation that Pillow supports.

        Raises:
            BadImageError: if it cannot be decoded.
        """
        ...

    def name(self, index: int) -> str:
        """The name of the image in error messages and in the data's digest, for example its path and size."""
        ...


class DataSource(Protocol):
    """A set of labelled images. A custom source needs these two attributes and this method.

    ``class_names``: the names of classes by label. ``flip``: whether a mirrored image keeps its class (False for text,
    or for left and right). A source may also have ``skipped``: the number of ignored files by reason.
    """

    class_names: tuple[str, ...]
    flip: bool

    def splits(self) -> Mapping[str, Examples]:
        """The splits that the data itself has: ``train``, and where they exist ``val`` and ``test``."""
        ...


@dataclass(frozen=True)
class FileExamples:
    """Image files and their labels.

    Args:
        files: the files.
        labels: one for each file.
        root: the folder that names are relative to.
    """

    files: Sequence[Path]
    labels: Sequence[int]
    root: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        if len(self.files) != len(self.labels):
            raise DmaskError(
                f"there are {len(self.files)} image files, but {len(self.labels)} labels",
                "give one label for each file",
            )

    def image(self, index: int) -> Image.Image:
        """The image in the file; see `Examples`."""
        return open_image(self.files[index])

    def name(self, index: int) -> str:
        """The file's path below ``root`` and its size in bytes."""
        file = self.files[index]
        shown = file.relative_to(self.root) if file.is_relative_to(self.root) else file
        try:
            return f"{shown} ({file.stat().st_size} bytes)"
        except OSError:
            return f"{shown} (missing)"


def digest_of(class_names: Sequence[str], splits: Mapping[str, Examples]) -> str:
    """Sixteen hexadecimal digits that identify the data by classes, splits, labels, names and sizes."""
    digest = hashlib.sha256("\0".join(class_names).encode("utf-8", "surrogateescape"))
    for split, examples in sorted(splits.items()):
        digest.update(f"\0{split}\0{len(examples.labels)}\0".encode())
        for index, label in enumerate(examples.labels):
            digest.update(f"{label}\0{examples.name(index)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
