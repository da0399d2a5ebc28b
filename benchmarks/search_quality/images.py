"""The images of a setting, decoded once: training and validation for every choice, the test split for the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.data.load import OpenedData
from dmask_mobile.data.registry import absolute_spec, open_source
from dmask_mobile.data.source import DataSource, Examples, digest_of
from dmask_mobile.data.splits import Chosen, with_validation
from dmask_mobile.records.data import DataOptions
from search_quality.once import CpuClock, Result, once
from search_quality.protocol import Setting


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


def identity_of(source: DataSource, setting: Setting) -> dict[str, Any]:
    """What the images of a setting depend on."""
    return {
        "data": digest_of(source.class_names, source.splits()),
        "resolution": setting.resolutions[-1],
        "images": [setting.train_images, setting.val_images],
    }


def prepared(work: Path, setting: Setting, spec: str) -> Result:
    """Decodes the training and validation images; says where they lie and what they depend on."""
    source = open_source(spec)
    identity = identity_of(source, setting)

    def job(folder: Path, clock: CpuClock) -> Result:
        splits = divided(source.splits())
        chosen = {
            "train": at_most(splits["train"], setting.train_images),
            "val": at_most(splits["val"], setting.val_images),
        }
        opened = OpenedData(absolute_spec(spec), source.class_names, chosen)
        kept: dict[str, Any] = {"flip": source.flip, "class_names": list(source.class_names), "spec": opened.spec}
        for split in chosen:
            kept[split] = _read(opened, split, setting)
        kept["mean"], kept["std"] = _statistics(kept["train"][0])
        torch.save(kept, folder / "images.pt")
        counts = {split: len(kept[split][1]) for split in chosen} | {"test": len(splits["test"].labels)}
        return {"path": str(folder / "images.pt"), "images": counts, "classes": len(source.class_names)}

    return {**once(work, "images", identity, job), "identity": identity}


def test_images(work: Path, setting: Setting, spec: str) -> ImageSet:
    """The test split: opened at the end, when no choice is left to be made."""
    source = open_source(spec)

    def job(folder: Path, clock: CpuClock) -> Result:
        opened = OpenedData(spec, source.class_names, {"test": divided(source.splits())["test"]})
        torch.save(_read(opened, "test", setting), folder / "test.pt")
        return {"path": str(folder / "test.pt")}

    identity = {**identity_of(source, setting), "images": None}
    path = once(work, "test-images", identity, job)["path"]
    return ImageSet.in_memory(*torch.load(path, weights_only=True))


def read_images(path: str, digest: str) -> ImageData:
    """What `prepared` has kept."""
    kept = torch.load(path, weights_only=True)
    return ImageData(
        kept["spec"],
        digest,
        tuple(kept["class_names"]),
        ImageSet.in_memory(*kept["train"]),
        ImageSet.in_memory(*kept["val"]),
        tuple(kept["mean"]),
        tuple(kept["std"]),
        kept["flip"],
    )


def _read(opened: OpenedData, split: str, setting: Setting) -> tuple[Tensor, Tensor]:
    images, _ = opened.read(split, setting.resolutions[-1], DataOptions(workers=0, skip_bad=True))
    return images.pixels(), images.labels


def _statistics(pixels_N3RR: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of pixels in 0..1."""
    found = [torch.std_mean(pixels_N3RR[:, channel].double() / 255, correction=0) for channel in range(3)]
    return [float(mean) for _, mean in found], [max(1e-3, float(std)) for std, _ in found]
