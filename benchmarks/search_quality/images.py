"""The images of a setting, decoded once: training and validation for every choice, the test split for the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.data.load import load_data, open_data
from dmask_mobile.data.registry import absolute_spec, open_source
from dmask_mobile.data.source import DataSource, Examples, digest_of
from dmask_mobile.data.splits import Chosen, with_validation
from dmask_mobile.records.data import DataOptions
from search_quality.once import CpuClock, Result, once

OPTIONS = DataOptions(workers=0, skip_bad=True)


class Amounts(Protocol):
    """How many images are used, and the resolutions in pixels, the largest one last."""

    @property
    def resolutions(self) -> tuple[int, ...]: ...

    @property
    def train_images(self) -> int | None: ...

    @property
    def val_images(self) -> int | None: ...


def divided(own: Mapping[str, Examples]) -> dict[str, Examples]:
    """Training, validation and test split of any data.

    Where the data has no test split, its validation split is kept back as one, or a fifth of the training images; where
    it then has no validation split, a fifth of the training images becomes that.
    """
    splits = dict(own)
    if "test" not in splits:
        cut, _ = with_validation(splits, seed=1)
        splits = {"train": cut["train"], "test": cut["val"]}
    return with_validation(splits)[0]


def at_most(examples: Examples, count: int | None) -> Examples:
    """Random ones of these, the same each time."""
    total = len(examples.labels)
    if count is None or count >= total:
        return examples
    return Chosen(examples, torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count].tolist())


def identity_of(source: DataSource, setting: Amounts) -> dict[str, Any]:
    """What the images of a setting depend on."""
    return {
        "data": digest_of(source.class_names, source.splits()),
        "resolution": setting.resolutions[-1],
        "images": [setting.train_images, setting.val_images],
    }


class Divided:
    """A `DataSource` with the splits of another one as `divided` makes them, no larger than a setting allows."""

    def __init__(self, source: DataSource, setting: Amounts) -> None:
        self.class_names, self.flip = source.class_names, source.flip
        self._source = source
        self._limits = {"train": setting.train_images, "val": setting.val_images}

    def splits(self) -> dict[str, Examples]:
        """See `DataSource`."""
        own = divided(self._source.splits())
        return {split: at_most(examples, self._limits.get(split)) for split, examples in own.items()}


def prepared(work: Path, setting: Amounts, spec: str) -> Result:
    """Decodes the training and validation images; says where they lie and what they depend on."""
    source = open_source(spec)
    identity = identity_of(source, setting)

    def job(folder: Path, clock: CpuClock) -> Result:
        divided_source = Divided(source, setting)
        data = load_data(divided_source, setting.resolutions[-1], OPTIONS)
        kept = {name: getattr(data, name) for name in ("digest", "class_names", "mean", "std", "flip")}
        for split, images in (("train", data.train), ("val", data.val)):
            kept[split] = images.pixels(), images.labels
        torch.save(kept, folder / "images.pt")
        counts = {"train": len(data.train), "val": len(data.val), "test": len(divided_source.splits()["test"].labels)}
        return {"path": str(folder / "images.pt"), "images": counts, "classes": data.classes}

    return {**once(work, "images", identity, job), "identity": identity, "spec": absolute_spec(spec)}


def test_images(work: Path, setting: Amounts, spec: str) -> ImageSet:
    """The test split: opened at the end, when no choice is left to be made."""
    source = open_source(spec)

    def job(folder: Path, clock: CpuClock) -> Result:
        images, _ = open_data(Divided(source, setting), None).read("test", setting.resolutions[-1], OPTIONS)
        torch.save((images.pixels(), images.labels), folder / "test.pt")
        return {"path": str(folder / "test.pt")}

    path = once(work, "test-images", {**identity_of(source, setting), "images": None}, job)["path"]
    return ImageSet.in_memory(*torch.load(path, weights_only=True))


def read_images(path: str) -> ImageData:
    """What `prepared` has kept."""
    kept = torch.load(path, weights_only=True)
    train, val = (ImageSet.in_memory(*kept.pop(split)) for split in ("train", "val"))
    return ImageData(spec=path, train=train, val=val, **kept)
