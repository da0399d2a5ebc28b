"""``torchvision:NAME:DIR``: a data set of torchvision in the folder DIR; nothing is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torchvision import datasets

from dmask_mobile.data.source import Examples
from dmask_mobile.data.splits import WORDS
from dmask_mobile.errors import DmaskError

SPLIT_VALUES = ("train", "val", "valid", "test", "trainval")
MIRRORS = {
    "MNIST",
    "EMNIST",
    "KMNIST",
    "QMNIST",
    "USPS",
    "SVHN",
    "GTSRB",
    "Omniglot",
    "RenderedSST2",
}  # classes change when mirrored


class TorchvisionSource:
    """The splits of a torchvision classification data set.

    Args:
        name_and_folder: ``NAME:DIR``: a class of ``torchvision.datasets`` and its ``root``.

    Raises:
        DmaskError: for an unknown name, for data that is not in the folder, or for a data set without labels.
    """

    def __init__(self, name_and_folder: str) -> None:
        self.name, _, self.folder = name_and_folder.partition(":")
        if self.name not in datasets.__all__ or not self.folder:
            raise DmaskError(
                f"no torchvision data set '{name_and_folder}'",
                "give torchvision:NAME:DIR, for example torchvision:CIFAR10:data",
            )
        self._splits = self._open()
        self.flip = self.name not in MIRRORS
        self.class_names = self._class_names()

    def splits(self) -> Mapping[str, Examples]:
        """The splits that torchvision offers; see `DataSource`."""
        return self._splits

    def _open(self) -> dict[str, TorchvisionExamples]:
        made = getattr(datasets, self.name)
        options = inspect.signature(made).parameters
        base: dict[str, Any] = {"root": self.folder} if "root" in options else {}
        if "download" in options:
            base["download"] = False
        if "train" in options:
            wanted: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
        elif "split" in options:
            wanted = {value: {"split": value} for value in SPLIT_VALUES}
        else:
            wanted = {"train": {}}
        found: dict[str, TorchvisionExamples] = {}
        reasons = []
        for split, chosen in wanted.items():
            try:
                opened = made(**base, **chosen)
            except (RuntimeError, ValueError, OSError, TypeError) as error:
                reasons.append(" ".join(str(error).split()))
                continue
            found[WORDS.get(split, split)] = TorchvisionExamples(opened, f"{self.name} {split}")
        if "train" not in found and "trainval" in found:
            found["train"] = found.pop("trainval")
        found.pop("trainval", None)
        if "train" not in found:
            raise DmaskError(
                f"torchvision's {self.name} is not in '{self.folder}': {reasons[0] if reasons else 'no train split'}",
                "download it there with torchvision first, or give another folder",
            )
        return found

    def _class_names(self) -> tuple[str, ...]:
        train = self._splits["train"]
        names = getattr(train.data, "classes", None)
        count = max(train.labels) + 1
        if names is None or len(names) < count:
            return tuple(map(str, range(count)))
        return tuple(" or ".join(name) if isinstance(name, tuple | list) else str(name) for name in names)


class TorchvisionExamples:
    """One split; see `Examples`.

    Raises:
        DmaskError: if the labels cannot be read without decoding images, or are not numbers.
    """

    def __init__(self, data: Any, title: str) -> None:
        self.data = data
        self.title = title
        self.labels = self._labels()

    def image(self, index: int) -> Image.Image:
        """See `Examples`."""
        image: Image.Image = self.data[index][0]
        return image

    def name(self, index: int) -> str:
        """The split and the number of the image; see `Examples`."""
        return f"{self.title} {index}"

    def _labels(self) -> Sequence[int]:
        for name in ("targets", "labels", "_labels", "y"):
            found = getattr(self.data, name, None)
            if found is not None and len(found) == len(self.data):
                labels = [int(label) for label in found] if all(_is_number(label) for label in found) else []
                if labels:
                    return labels
        samples = getattr(self.data, "samples", None) or getattr(self.data, "_samples", None)
        if samples and all(_is_number(sample[1]) for sample in samples):
            return [int(sample[1]) for sample in samples]
        raise DmaskError(
            f"torchvision's {self.title} gives no class labels that can be read without decoding its images",
            "write a custom source: --data module:Class",
        )


def _is_number(label: Any) -> bool:
    try:
        return float(label) == int(label) >= 0
    except (TypeError, ValueError):
        return False
