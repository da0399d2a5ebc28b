"""Recognizes folders of splits, and makes missing splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from dmask_mobile.data.source import Examples
from dmask_mobile.errors import DmaskError

SPLITS = ("train", "val", "test")
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
AUTOMATIC_SHARE = 0.2


@dataclass(frozen=True)
class Chosen:
    """Some of the examples of another split."""

    examples: Examples
    indices: Sequence[int]

    @cached_property
    def labels(self) -> Sequence[int]:
        """One label for each example; see `Examples`."""
        return [self.examples.labels[index] for index in self.indices]

    def image(self, index: int) -> Image.Image:
        """See `Examples`."""
        return self.examples.image(self.indices[index])

    def name(self, index: int) -> str:
        """See `Examples`."""
        return self.examples.name(self.indices[index])


def split_names(folders: Sequence[str]) -> dict[str, str] | None:
    """The split of each folder, if all folders have names of splits and one is a train split; otherwise None.

    Raises:
        DmaskError: if two folders have names of the same split.
    """
    found = {name: WORDS[name.lower()] for name in folders if name.lower() in WORDS}
    if len(found) < len(folders) or "train" not in found.values():
        return None
    for split in SPLITS:
        named = sorted(name for name, other in found.items() if other == split)
        if len(named) > 1:
            raise DmaskError(f"the folders {', '.join(named)} all have names of the {split} split", "keep one of them")
    return found


def with_validation(splits: Mapping[str, Examples], seed: int = 0) -> tuple[dict[str, Examples], str]:
    """The splits with a ``val`` cut out of ``train`` if there is none, and a sentence that says so.

    The cut is stratified and depends on ``seed``: it takes a fifth of each class, rounded, but never the last image of
    a class.
    """
    if "val" in splits:
        return dict(splits), ""
    train = splits["train"]
    labels, random = np.asarray(train.labels), np.random.default_rng(seed)
    held_out: list[int] = []
    for label in np.unique(labels):
        of_class = random.permutation(np.flatnonzero(labels == label))
        held_out += of_class[: min(max(1, round(len(of_class) * AUTOMATIC_SHARE)), len(of_class) - 1)].tolist()
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    found = {**splits, "train": Chosen(train, kept.tolist()), "val": Chosen(train, sorted(held_out))}
    return (
        found,
        f"no val split: {len(held_out)} of {len(labels)} training images, a fifth of each class, are used as one",
    )
