"""The `DataSource` Protocol: what a set of labelled images must tell, before any image is decoded."""

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
    """The labelled images of one split. Opening them decodes nothing; each image is decoded when it is asked for."""

    @property
    def labels(self) -> Sequence[int]:
        """The number of each image's class."""
        ...

    def image(self, index: int) -> Image.Image:
        """Image number ``index``, in any mode and orientation that Pillow knows.

        Raises:
            BadImageError: when it does not decode.
        """
        ...

    def name(self, index: int) -> str:
        """What errors call the image, and what tells this data from other data: a path and a size, say."""
        ...


class DataSource(Protocol):
    """A set of labelled images. A source of your own has these two attributes and this one method.

    ``class_names``: by label. ``flip``: whether a mirror image keeps its class (False for text, left and right).
    A source may also have ``skipped``: files that are no images of the data, counted by the reason why.
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
        root: names are relative to it.
    """

    files: Sequence[Path]
    labels: Sequence[int]
    root: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        if len(self.files) != len(self.labels):
            raise DmaskError(
                f"{len(self.files)} image files have {len(self.labels)} labels", "give one label for each file"
            )

    def image(self, index: int) -> Image.Image:
        """The file's image; see `Examples`."""
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
    """Sixteen hexadecimal digits that name the data by its content: classes, splits, labels, names and sizes."""
    digest = hashlib.sha256("\0".join(class_names).encode("utf-8", "surrogateescape"))
    for split, examples in sorted(splits.items()):
        digest.update(f"\0{split}\0{len(examples.labels)}\0".encode())
        for index, label in enumerate(examples.labels):
            digest.update(f"{label}\0{examples.name(index)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
