"""Makes `ImageData` from a source: splits, checks, images in memory, normalization."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from dmask_mobile.data.decoding import resized_to
from dmask_mobile.data.images import ImageData, ImageSet, Pictures, Undecodable
from dmask_mobile.data.registry import absolute_spec, name_of, open_source, splits_of
from dmask_mobile.data.source import DataSource, Examples, digest_of
from dmask_mobile.data.splits import SPLITS, with_validation
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.ranks import local_processes, num_cores
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.names import check_class_names

logger = logging.getLogger(__name__)

BATCH = 64  # images that a worker decodes at a time
MAX_WORKERS = 4
MIN_FOR_WORKERS = 500  # images; fewer than this are decoded before workers would have started
MAX_STATISTICS = 100_000  # images from which mean and standard deviation are computed
MIN_DEVIATION = 1e-3  # used for a constant channel
DEFAULTS = DataOptions()


def load_data(
    data: str | DataSource,
    resolution: PositiveInt,
    options: DataOptions = DEFAULTS,
    progress: Progress = silent,
    *,
    crop: float = 1.0,
) -> ImageData:
    """The training and validation images of ``data``; the test split is not opened.

    Args:
        data: see `open_source`.
        resolution: the images become ``resolution`` x ``resolution`` pixels: the largest centred square, scaled.
        options: memory, workers and mirroring.
        progress: is called while images are decoded.
        crop: the share of the shorter side that the central square keeps.

    Raises:
        DmaskError: for data that does not exist or has fewer than two classes or too few images, or naming an image
            that cannot be decoded.
    """
    source, spec = open_source(data), name_of(data)
    own = splits_of(source)
    check_splits(spec, source.class_names, own)
    splits, note = with_validation(own)
    left = options.memory_bytes // local_processes()
    sets, notes = {}, [note] if note else []
    for split in ("train", "val"):
        sets[split], bad = _image_set(splits[split], resolution, left, options, progress, crop)
        left -= len(sets[split].pictures.kept) * sets[split].pictures.image_bytes
        _check_left(spec, split, splits[split], sets[split])
        notes += [f"{split}: left out {len(bad)} that cannot be decoded, the first is '{bad[0].name}'"] if bad else []
    if "test" not in own:
        notes.append("no test split: accuracies are those of the val split")
    train = sets["train"]
    mean, std, sampled = _statistics(train)
    if sampled < len(train):
        notes.append(f"mean and standard deviation are computed from {sampled:,} random training images")
    flip = source.flip if options.flip is None else options.flip
    digest = digest_of(source.class_names, own)
    notes += [f"skipped {count} x {reason}" for reason, count in sorted(getattr(source, "skipped", {}).items())]
    images = ImageData(
        absolute_spec(data), digest, source.class_names, train, sets["val"], mean, std, flip, notes=tuple(notes)
    )
    logger.info("data '%s': %s", spec, summary_of(images))
    progress("data", 1, 1, summary_of(images))
    return images


def summary_of(data: ImageData) -> str:
    """One line about the data: images, classes, memory, mirroring, and notes for the user."""
    parts = (data.train.pictures, data.val.pictures)
    in_memory = sum(len(pictures.kept) * pictures.image_bytes for pictures in parts)
    rest = sum(len(pictures) - len(pictures.kept) for pictures in parts)
    return "; ".join(
        [
            f"{len(data.train):,} training and {len(data.val):,} validation images of {data.classes} classes",
            f"{in_memory / 2**20:,.0f} MiB in memory" + (f", {rest:,} images decoded when needed" if rest else ""),
            f"training {'mirrors' if data.flip else 'does not mirror'} images",
            *data.notes,
        ]
    )


@dataclass(frozen=True)
class OpenedData:
    """Data of which no image has been read yet; ``splits`` contains a ``val`` cut out of ``train`` if there was none.

    ``spec``: the name in error messages; ``digest``: a digest of the content.
    """

    spec: str
    digest: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Examples]

    def read(
        self,
        split: str,
        resolution: int,
        options: DataOptions = DEFAULTS,
        progress: Progress = silent,
        *,
        crop: float = 1.0,
    ) -> tuple[ImageSet, int]:
        """The images of one split, as `load_data` reads them, and how many were left out; other splits are not opened.

        Raises:
            DmaskError: in the same cases as `load_data`.
        """
        images, bad = _image_set(self.splits[split], resolution, options.memory_bytes, options, progress, crop)
        _check_left(self.spec, split, self.splits[split], images)
        return images, len(bad)


def open_data(data: str | DataSource, data_digest: str | None) -> OpenedData:
    """The splits of ``data``; none of them is opened yet.

    Raises:
        DmaskError: in the same cases as `check_splits`, or if the data no longer has the digest ``data_digest``.
    """
    source, spec = open_source(data), name_of(data)
    own = splits_of(source)
    digest = digest_of(source.class_names, own)
    if data_digest not in (None, digest):
        raise DmaskError(
            f"data '{spec}' has changed since the run was made",
            "restore it, or train again on it: dmask train RUN --data DATA --restart",
        )
    check_splits(spec, source.class_names, own)
    return OpenedData(spec, digest, source.class_names, with_validation(own)[0])


def check_splits(spec: str, class_names: Sequence[str], splits: Mapping[str, Examples]) -> None:
    """Checks everything that can be checked before an image is decoded.

    Raises:
        DmaskError: for fewer than two classes, an unknown split, labels out of range, a class that ``train`` lacks, or
            fewer than two training images.
    """
    try:
        check_class_names(class_names)
    except ValueError as error:
        raise DmaskError(f"data '{spec}': {error}", "rename that class") from None
    if len(class_names) < 2:
        raise DmaskError(
            f"data '{spec}' has {len(class_names)} class: {', '.join(class_names)}",
            "a classifier needs at least two classes of images",
        )
    unknown = sorted(splits.keys() - set(SPLITS))
    if unknown or "train" not in splits:
        raise DmaskError(
            f"data '{spec}' has the splits {', '.join(splits)}", "it needs train, and may have val and test"
        )
    counts = {split: np.bincount(_labels(spec, examples, len(class_names))) for split, examples in splits.items()}
    present = {split: set(np.flatnonzero(count).tolist()) for split, count in counts.items()}
    for split in splits:
        lacking = sorted(present[split] - present["train"])
        if lacking:
            raise DmaskError(
                f"data '{spec}': the {split} split has the class '{class_names[lacking[0]]}', which is not in train",
                "give the splits the same classes",
            )
        if not len(splits[split].labels):
            raise DmaskError(f"data '{spec}': the {split} split is empty", "put images into it, or remove it")
    if "val" not in splits and max(counts["train"]) < 2:
        raise DmaskError(
            f"data '{spec}' has one image a class and no val split", "give two images of a class or a val split"
        )


def _check_left(spec: str, split: str, examples: Examples, images: ImageSet) -> None:
    """Checks that enough images are left after those that cannot be decoded were left out.

    Raises:
        DmaskError: if a split is empty, or ``train`` has lost a class or has only one image.
    """
    lost = set(np.unique(np.asarray(examples.labels)).tolist()) - set(images.labels.tolist())
    if not len(images) or (split == "train" and (lost or len(images) < 2)):
        what = "no image" if not len(images) else f"no image of class {min(lost)}" if lost else "one image"
        raise DmaskError(f"data '{spec}': the {split} split has {what} that can be decoded", "repair or add images")


def _labels(spec: str, examples: Examples, classes: int) -> np.ndarray:
    """The labels (N,) int64.

    Raises:
        DmaskError: if they are not the numbers of classes.
    """
    given = np.asarray(examples.labels)
    if given.ndim != 1 or (len(given) and not np.issubdtype(given.dtype, np.integer)):
        raise DmaskError(
            f"data '{spec}': labels must be a list of integers, found {given.dtype} of shape {given.shape}",
            "give the number of each image's class",
        )
    labels = given.astype(np.int64)
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise DmaskError(
            f"data '{spec}': labels must be 0 to {classes - 1}, found {labels.min()} to {labels.max()}",
            "give as many class names as there are classes",
        )
    return labels


def _image_set(
    examples: Examples, resolution: int, memory_bytes: int, options: DataOptions, progress: Progress, crop: float
) -> tuple[ImageSet, list[Undecodable]]:
    """A split with as many images in memory as fit into ``memory_bytes``, and the images that were left out."""
    count = len(examples.labels)
    workers = options.workers
    if workers is None:
        cores = max(1, num_cores() // local_processes())
        workers = min(MAX_WORKERS, cores) if count >= MIN_FOR_WORKERS else 0
    pictures = Pictures(examples, resolution, workers, resized_to(resolution, crop))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    kept = order[: memory_bytes // pictures.image_bytes].sort().values
    bad = _keep(pictures, kept, options.skip_bad, progress)
    if options.skip_bad and len(kept) < count:
        rest = order[len(kept) :].sort().values
        bad |= _undecodable(pictures, rest, progress)
    good = torch.tensor([number for number in range(count) if number not in bad], dtype=torch.int64)
    labels = torch.as_tensor(np.asarray(examples.labels, dtype=np.int64))
    return ImageSet(pictures, good, labels[good]), [bad[number] for number in sorted(bad)]


def _chunks(numbers: Tensor) -> list[list[int]]:
    return [numbers[start : start + BATCH].tolist() for start in range(0, len(numbers), BATCH)]


def _decoded(
    pictures: Pictures, numbers: Tensor, stage: str, progress: Progress
) -> Iterator[tuple[list[int], Tensor, dict[int, Undecodable]]]:
    """For some images at a time: numbers and content of the decoded images; by number, those that cannot be decoded."""
    chunks = _chunks(numbers)
    for done, (chunk, (images, failed)) in enumerate(zip(chunks, pictures.decode(chunks), strict=True), start=1):
        yield chunk, images, {chunk[place]: picture for place, picture in failed.items()}
        progress(stage, min(done * BATCH, len(numbers)), len(numbers))


def _keep(pictures: Pictures, numbers: Tensor, skip_bad: bool, progress: Progress) -> dict[int, Undecodable]:
    """Decodes images into memory; returns by number those that cannot be decoded, if they are to be skipped."""
    bad: dict[int, Undecodable] = {}
    images = torch.empty((len(numbers), *pictures.kept.shape[1:]), dtype=torch.uint8)
    good: list[int] = []
    for chunk, read, failed in _decoded(pictures, numbers, "read images", progress):
        if failed and not skip_bad:
            list(pictures.read([chunk]))  # raises the error that names the image
        bad |= failed
        if len(read):
            images[len(good) : len(good) + len(read)] = read
        good += [number for number in chunk if number not in failed]
    pictures.keep(good, images[: len(good)])
    return bad


def _undecodable(pictures: Pictures, numbers: Tensor, progress: Progress) -> dict[int, Undecodable]:
    """Those images that cannot be decoded, by number; the decoded images are not kept."""
    found = _decoded(pictures, numbers, "check images", progress)
    return {number: picture for _, _, failed in found for number, picture in failed.items()}


def _statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and standard deviation of each channel for pixels in 0..1, and the number of images they come from.

    They are summed in float64 over one batch after the other.
    """
    chosen = torch.arange(len(images))
    if len(images) > MAX_STATISTICS:  # independent of what is in memory, which must not change the result
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:MAX_STATISTICS]
    sums, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    for pixels, _ in images.batches(_chunks(chosen)):
        values = pixels.double() / 255
        sums += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
        count += values[:, 0].numel()
    mean = sums / count
    variance = (squares - count * mean.square()).clamp_min(0) / max(1, count - 1)
    return tuple(mean.tolist()), tuple(variance.sqrt().clamp_min(MIN_DEVIATION).tolist()), len(chosen)
