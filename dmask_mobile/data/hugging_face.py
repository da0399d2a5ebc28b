"""``hf:DIR``: a data set of Hugging Face ``datasets`` that was saved to disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dmask_mobile.data.decoding import open_image
from dmask_mobile.data.source import Examples
from dmask_mobile.data.splits import WORDS
from dmask_mobile.errors import DmaskError


class HuggingFaceSource:
    """The splits of a saved data set with an image column and a ``ClassLabel`` column.

    Args:
        folder: the folder written by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``.

    Raises:
        DmaskError: if the package ``datasets`` is not installed, or the folder is not such a data set.
    """

    flip = True

    def __init__(self, folder: str) -> None:
        try:
            import datasets
        except ImportError as error:
            raise DmaskError(
                "Hugging Face data needs the package 'datasets'",
                "pip install 'dmask-mobile[hf]'",
            ) from error
        if not Path(folder).is_dir():
            raise DmaskError(f"no folder '{folder}'", "give the folder written by save_to_disk")
        try:
            loaded = datasets.load_from_disk(folder)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DmaskError(
                f"'{folder}' is not a data set written by save_to_disk: {' '.join(str(error).split())}",
                "save it again, or give folder:DIR for images in class folders",
            ) from error
        parts = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        self._splits: dict[str, HuggingFaceExamples] = {}
        self.class_names: tuple[str, ...] = ()
        for name, part in parts.items():
            if name.lower() not in WORDS:
                raise DmaskError(f"'{folder}' has a split '{name}'", "name the splits train, validation and test")
            image = _column(part, datasets.Image, folder)
            label = _column(part, datasets.ClassLabel, folder)
            names = tuple(part.features[label].names)
            if self.class_names not in ((), names) or WORDS[name.lower()] in self._splits:
                raise DmaskError(
                    f"'{folder}': the split '{name}' has other classes than an earlier split, or appears twice",
                    "save the data set with the same ClassLabel in all splits, and one split of each kind",
                )
            self.class_names = names
            raw = part.cast_column(image, datasets.Image(decode=False))
            self._splits[WORDS[name.lower()]] = HuggingFaceExamples(raw, image, part[label])
        if "train" not in self._splits:
            raise DmaskError(f"'{folder}' has no train split", "save the data set with a train split")

    def splits(self) -> Mapping[str, Examples]:
        """The splits that were saved; see `DataSource`."""
        return self._splits


class HuggingFaceExamples:
    """One split; see `Examples`."""

    def __init__(self, data: Any, column: str, labels: Sequence[int]) -> None:
        self.data = data
        self.column = column
        self.labels = [int(label) for label in labels]

    def image(self, index: int) -> Image.Image:
        """See `Examples`."""
        cell = self.data[index][self.column]
        return open_image(cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]))

    def name(self, index: int) -> str:
        """The data set's own fingerprint and the number of the image; see `Examples`."""
        return f"{self.data._fingerprint} {index}"


def _column(data: Any, kind: type, folder: str) -> str:
    """The only column of a type."""
    found = [name for name, feature in data.features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        raise DmaskError(
            f"'{folder}' has {len(found)} columns of the type {kind.__name__}; exactly one is needed",
            "keep one image column and one ClassLabel column",
        )
    return str(found[0])
