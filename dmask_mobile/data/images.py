"""Labelled images for networks: square, RGB, uint8. They are in memory up to a limit; the rest is decoded on demand.

All networks get their images by one rule: images are decoded at the space's largest resolution, and a network with a
lower resolution gets a nearest-neighbour subsample (`ImageData.at`). This holds in the supernet, in ranking, in
training and in verification.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dmask_mobile.data.arrays import ArrayExamples
from dmask_mobile.data.augmentation import ByImage
from dmask_mobile.data.decoding import as_seen, is_fault_of_machine, reason_of, square
from dmask_mobile.data.source import Examples
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space_options import InputOptions
from dmask_mobile.supernet.resolution import subsample

CHANNELS = 3
BATCHES_BETWEEN_TRIMS = 20


class Undecodable(NamedTuple):
    """An image that cannot be decoded, and the reason."""

    name: str
    reason: str


class Pictures(Dataset[Tensor | Undecodable]):
    """All images of one split at one resolution, accessed by number.

    Args:
        examples: the source of the images.
        resolution: pixels of their sides.
        workers: the number of processes that decode images that are not in memory; 0 decodes in this process.
        resized: pixels of their shorter sides before the central square is cut out; the default is ``resolution``.
    """

    def __init__(self, examples: Examples, resolution: int, workers: int = 0, resized: int | None = None) -> None:
        self.resized = resized or resolution
        self.examples = examples.at(self.resized) if hasattr(examples, "at") else examples
        self.resolution = resolution
        self.workers = workers
        self.kept = torch.empty((0, CHANNELS, resolution, resolution), dtype=torch.uint8)
        self.place = torch.full((len(examples.labels),), -1)  # the position of each image in `kept`; -1: not in memory

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, number: int) -> Tensor | Undecodable:
        if (place := int(self.place[number])) >= 0:
            return self.kept[place]
        try:
            return torch.from_numpy(square(as_seen(self.examples.image(number)), self.resolution, self.resized))
        except DmaskError:
            raise
        except Exception as error:  # parsers and custom sources may raise any exception
            if is_fault_of_machine(error):
                raise
            return Undecodable(self.examples.name(number), reason_of(error))

    @property
    def image_bytes(self) -> int:
        """The memory of one decoded image in bytes."""
        return CHANNELS * self.resolution**2

    def read(
        self, batches: Sequence[Sequence[int]], by_image: ByImage | None = None, seed: int = 0
    ) -> Iterator[Tensor]:
        """The images (N, 3, R, R) uint8 of each batch of numbers; the next batches are decoded in the meantime.

        Args:
            batches: the numbers of the images.
            by_image: the operations on single images.
            seed: the seed of these operations, used together with the number of the image.

        Raises:
            DmaskError: naming an image that cannot be decoded.
        """
        if by_image is None and all(bool((self.place[list(batch)] >= 0).all()) for batch in batches):
            yield from (self.kept[self.place[list(batch)]] for batch in batches)
            return
        for images, bad in self.decode(batches, by_image, seed):
            for picture in bad.values():
                raise DmaskError(
                    f"image '{picture.name}' cannot be decoded: {picture.reason}",
                    "remove or repair it; --skip-bad leaves such images out",
                )
            yield images

    def decode(
        self, batches: Sequence[Sequence[int]], by_image: ByImage | None = None, seed: int = 0
    ) -> Iterator[tuple[Tensor, dict[int, Undecodable]]]:
        """For each batch, the decoded images, and those that cannot be decoded by their position in the batch."""
        loader = DataLoader(
            self if by_image is None else _Changed(self, by_image, seed),
            batch_sampler=[list(batch) for batch in batches],
            num_workers=self.workers,
            collate_fn=_together,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # seeds the workers; no other random numbers are affected
        )
        try:
            for number, decoded in enumerate(loader):
                if number % BATCHES_BETWEEN_TRIMS == 0:
                    _trim_memory()
                yield decoded
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DmaskError(
                f"a process that decodes images has ended: {str(error).partition(chr(10))[0]}",
                "use --workers 0 or a lower --memory",
            ) from error

    def keep(self, numbers: Sequence[int], images: Tensor) -> None:
        """Keeps decoded images in memory from now on."""
        self.place[list(numbers)] = torch.arange(len(numbers)) + len(self.kept)
        self.kept = torch.cat([self.kept, images]) if len(self.kept) else images


class _Changed(Dataset[Tensor | Undecodable]):
    """Pictures after the operations on single images, which depend on the number of the image and a seed."""

    def __init__(self, pictures: Pictures, by_image: ByImage, seed: int) -> None:
        self.pictures = pictures
        self.by_image = by_image
        self.seed = seed

    def __getitem__(self, number: int) -> Tensor | Undecodable:
        picture = self.pictures[number]
        return (
            self.by_image(picture, self.seed * len(self.pictures) + number) if isinstance(picture, Tensor) else picture
        )


def _trim_memory() -> None:
    """Returns freed memory to the system, if the C library supports it (glibc).

    Batches from other processes fragment the heap. Without this, a process at 160 px grew by 300 MB in 25 batches, and
    by the same amount in each further epoch.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _together(pictures: list[Tensor | Undecodable]) -> tuple[Tensor, dict[int, Undecodable]]:
    """One tensor with all decoded images, because each tensor that a worker sends needs a file descriptor."""
    bad = {place: picture for place, picture in enumerate(pictures) if isinstance(picture, Undecodable)}
    good = [picture for picture in pictures if isinstance(picture, Tensor)]
    return torch.stack(good) if good else torch.empty(0), bad


def _ignore_interrupts(worker: int) -> None:
    """Makes a worker ignore Ctrl-C: the main process receives it and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class ImageSet:
    """Some of the images of a split, and their labels (N,) int64."""

    pictures: Pictures
    numbers: Tensor
    labels: Tensor

    @classmethod
    def in_memory(cls, images_N3RR: Tensor, labels_N: Tensor) -> ImageSet:
        """Decoded images (N, 3, R, R) uint8 and their labels (N,)."""
        examples = ArrayExamples(images_N3RR.permute(0, 2, 3, 1).numpy(), labels_N.tolist(), "in memory")
        pictures = Pictures(examples, images_N3RR.shape[-1])
        pictures.keep(range(len(labels_N)), images_N3RR)
        return cls(pictures, torch.arange(len(labels_N)), labels_N)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at ``indices``; nothing is copied."""
        return ImageSet(self.pictures, self.numbers[indices], self.labels[indices])

    def some(self, most: int) -> ImageSet:
        """At most ``most`` random images, the same ones every time."""
        return self.subset(torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:most])

    def pixels(self, indices: Tensor | None = None) -> Tensor:
        """The images (N, 3, R, R) uint8 at ``indices``, or all of them.

        Raises:
            DmaskError: naming an image that cannot be decoded.
        """
        numbers = self.numbers if indices is None else self.numbers[indices]
        if not len(numbers):
            return self.pictures.kept[:0]
        return next(self.pictures.read([numbers.tolist()]))

    @property
    def resolution(self) -> int:
        """The side of the images in pixels."""
        return self.pictures.resolution

    def batches(
        self, batches: Sequence[Sequence[int]], by_image: ByImage | None = None, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, 3, R, R) uint8 and labels (N,) of each batch of indices; see `Pictures.read`."""
        numbers = [self.numbers[list(batch)].tolist() for batch in batches]
        for batch, images in zip(batches, self.pictures.read(numbers, by_image, seed), strict=True):
            yield images, self.labels[list(batch)]


@dataclass(frozen=True)
class ImageData:
    """A data set: training and validation images, class names, and normalization (for images in 0..1).

    ``spec``: the user's text for the data with absolute paths; None for a source object. ``digest``: a digest of its
    content. ``flip``: whether training mirrors images. ``resolution``: the resolution in pixels that networks get; None
    for the full one. ``notes``: facts about reading that a user must know.
    """

    spec: str | None
    digest: str
    class_names: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    resolution: int | None = None
    notes: tuple[str, ...] = ()

    def at(self, resolution: int) -> ImageData:
        """The same images, but networks get their subsample at ``resolution`` pixels."""
        return replace(self, resolution=resolution)

    def normalized_by(self, image: InputOptions) -> ImageData:
        """The same images with the normalization of a space's input, where that has one of its own."""
        if image.mean is None or image.std is None:
            return self
        return replace(self, mean=image.mean, std=image.std)

    @property
    def decoded_at(self) -> int:
        """The resolution in pixels at which the images are decoded."""
        return self.train.pictures.resolution

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def normalization_of(data: ImageData) -> dict[str, Any]:
    """The settings of the data that a checkpoint must match, in addition to its content."""
    resized = data.train.pictures.resized
    return {
        **({"resized": resized} if resized != data.decoded_at else {}),
        "flip": data.flip,
        "mean": list(data.mean),
        "std": list(data.std),
        "images": [len(data.train), len(data.val)],
    }


class Normalization(Protocol):
    """The settings that turn pixels into network inputs; `ImageData` has them."""

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each channel, for pixels in 0..1."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of each channel."""
        ...

    @property
    def resolution(self) -> int | None:
        """The resolution in pixels that networks get; None for the full one."""
        ...


class KnownNormalization(NamedTuple):
    """The normalization of a run, without its images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: int | None


def seen(images_N3RR: Tensor, data: Normalization) -> Tensor:
    """Float images in 0..1 at the resolution that networks get."""
    return subsample(images_N3RR, data.resolution or images_N3RR.shape[-1]).float() / 255


def normalized(images_N3RR: Tensor, data: Normalization) -> Tensor:
    """Float images as input for networks: `seen`, then normalized for each channel.

    They are in the channels-last memory format, with which depthwise convolutions on a CPU take half the time.
    """
    device = images_N3RR.device
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (data.mean, data.std))
    return ((seen(images_N3RR, data) - mean) / std).contiguous(memory_format=torch.channels_last)


def split_for_search(images: ImageSet, share: float, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
    """Two random parts of ``images``: 1 - ``share`` for the weights and ``share`` for the gates."""
    order = torch.randperm(len(images), generator=generator)
    cut = round(len(order) * (1 - share))
    return images.subset(order[:cut]), images.subset(order[cut:])
