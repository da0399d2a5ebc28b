"""Labelled images in memory: `load_data` reads every source into the same form.

All images become RGB, ``resolution`` x ``resolution`` pixels, uint8; networks see them scaled to 0..1 and then
normalized by the training images' mean and standard deviation for each channel. A network of a lower resolution sees
their nearest-neighbour subsample (`ImageData.at`): one rule, in the supernet, in ranking, training and verification.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.transforms import v2

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.names import check_class_names
from dmask_mobile.supernet.resolution import subsample
from dmask_mobile.training.glyphs import MATPLOTLIB_FONTS, render_glyphs
from dmask_mobile.training.photos import open_photo, to_square

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
VALIDATION_SHARE = 0.2  # of a folder that has no split of its own


class ImageSet(NamedTuple):
    """Images (N, 3, R, R) uint8 and their labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at ``indices``."""
        return ImageSet(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class ImageData:
    """A data set: training and validation images, class names, normalization (of images in 0..1).

    ``resolution``: what networks see of the images, in pixels; None for all of it.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    resolution: int | None = None

    def at(self, resolution: int) -> ImageData:
        """The same images, of which networks see the subsample at ``resolution`` pixels."""
        return replace(self, resolution=resolution)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Training images with random crops (padding 1/8) and, where a mirror image keeps its class, flips."""

    def __init__(self, images: ImageSet, data: ImageData) -> None:
        self.images = images
        size = images.images.shape[-1]
        steps: list[torch.nn.Module] = [v2.RandomCrop(size, padding=max(1, size // 8), padding_mode="edge")]
        if data.flip:
            steps.append(v2.RandomHorizontalFlip())
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images.images[index]), self.images.labels[index]


def seen(images_N3RR: Tensor, data: ImageData) -> Tensor:
    """Float images in 0..1 at the resolution that networks see."""
    return subsample(images_N3RR, data.resolution or images_N3RR.shape[-1]).float() / 255


def normalized(images_N3RR: Tensor, data: ImageData) -> Tensor:
    """Float images as networks are trained on them: `seen`, then per-channel normalization.

    In channels-last memory format: depthwise convolutions on a CPU take half the time with it.
    """
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    return ((seen(images_N3RR, data) - mean) / std).contiguous(memory_format=torch.channels_last)


def split_for_search(images: ImageSet, share: float, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
    """Two random parts of ``images``: 1 - ``share`` for the weights and ``share`` for the gates."""
    order = torch.randperm(len(images.labels), generator=generator)
    cut = round(len(order) * (1 - share))
    return images.subset(order[:cut]), images.subset(order[cut:])


def load_data(spec: str, resolution: int) -> ImageData:
    """The images that ``spec`` names, at ``resolution`` x ``resolution`` pixels.

    Args:
        spec: ``glyphs[:FONT_FOLDER]``, ``fashion-mnist[:FOLDER]`` or the path of a folder that holds one folder of
            images for each class (or such folders under ``train/`` and ``val/``).
        resolution: pixels.

    Raises:
        DmaskError: when there is nothing to read, no image or fewer than two classes.
    """
    name, _, argument = spec.partition(":")
    loaders: dict[str, Callable[[str, int], ImageData]] = {"glyphs": _glyphs, "fashion-mnist": _fashion_mnist}
    data = loaders[name](argument, resolution) if name in loaders else _folder(spec, resolution)
    try:
        check_class_names(data.class_names)
    except ValueError as error:
        raise DmaskError(f"data '{spec}': {error}", "rename that folder of images") from None
    if data.classes < 2:
        raise DmaskError(
            f"data '{spec}' has {data.classes} class: {', '.join(data.class_names)}",
            "a classifier needs at least two folders of images, one for each class",
        )
    return data


def _finish(name: str, class_names: tuple[str, ...], train: ImageSet, val: ImageSet, flip: bool) -> ImageData:
    pixels = train.images.to(torch.float64) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp_min(1e-3)
    return ImageData(name, class_names, train, val, tuple(mean.tolist()), tuple(std.tolist()), flip)


def _random_split(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    return split_for_search(images, VALIDATION_SHARE, torch.Generator().manual_seed(0))


def _glyphs(folder: str, resolution: int) -> ImageData:
    glyphs = render_glyphs(Path(folder) if folder else MATPLOTLIB_FONTS, resolution)
    images = ImageSet(torch.from_numpy(glyphs.images), torch.from_numpy(glyphs.labels))
    if glyphs.held_out is None:
        train, val = _random_split(images)
    else:
        held_out = torch.from_numpy(glyphs.held_out)
        train, val = images.subset(~held_out), images.subset(held_out)
    return _finish("glyphs", tuple(glyphs.characters), train, val, flip=False)


def _fashion_mnist(folder: str, resolution: int) -> ImageData:
    source = Path(folder) if folder else FASHION_MNIST_FOLDER
    archives = sorted(source.glob("*-ubyte.gz"))
    if len(archives) != 4:
        raise DmaskError(
            f"Fashion-MNIST is four '*-ubyte.gz' files, found {len(archives)} in '{source}'",
            "install Debian's package dataset-fashion-mnist or give the folder: fashion-mnist:FOLDER",
        )
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for archive in archives:
            with gzip.open(archive) as packed, (raw / archive.stem).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        parts = [datasets.FashionMNIST(root, train=train) for train in (True, False)]
    resize = v2.Resize((resolution, resolution), antialias=True)
    train, val = (
        ImageSet(resize(part.data[:, None]).expand(-1, 3, -1, -1).contiguous(), part.targets) for part in parts
    )
    return _finish("fashion-mnist", tuple(parts[0].classes), train, val, flip=True)


def _folder(path: str, resolution: int) -> ImageData:
    root = Path(path)
    if not root.is_dir():
        raise DmaskError(f"no data '{path}'", "give glyphs, fashion-mnist or a folder with one folder for each class")
    if (root / "train").is_dir() and (root / "val").is_dir():
        class_names, train = _read_images(root / "train", resolution)
        val_names, val = _read_images(root / "val", resolution)
        if val_names != class_names:
            raise DmaskError(f"'{path}': train/ and val/ must hold the same classes, found {class_names}, {val_names}")
    else:
        class_names, images = _read_images(root, resolution)
        train, val = _random_split(images)
    return _finish(root.name, class_names, train, val, flip=True)


def _read_images(root: Path, resolution: int) -> tuple[tuple[str, ...], ImageSet]:
    try:
        folder = datasets.ImageFolder(str(root), transform=to_square(resolution), loader=open_photo)
    except FileNotFoundError as error:  # torchvision: no class folder, or one without images
        raise DmaskError(
            f"'{root}' holds no images by class: {error}", "put the images of each class into a folder of its own"
        ) from error
    images, labels = zip(*(folder[index] for index in range(len(folder))), strict=True)
    return tuple(folder.classes), ImageSet(torch.stack(images), torch.tensor(labels))
