"""The reference for exported models: the run's network on validation images, and on test images for accuracies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from dmask_mobile.api.run_data import crop_of, decoded_at, opened_data, trained_network
from dmask_mobile.api.testing import note_opening
from dmask_mobile.progress import Progress
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import hash_path
from dmask_mobile.records.verification import Check
from dmask_mobile.run import RunFolder, RunRecord

if TYPE_CHECKING:
    from torch import Tensor

    from dmask_mobile.api.arguments import AnyData
    from dmask_mobile.data.images import ImageSet
    from export.verification.reference import Reference

BATCH = 64  # images that are decoded together


def reference_of(
    folder: RunFolder, data: AnyData | None, images: int, progress: Progress
) -> tuple[Reference, tuple[Check, ...]]:
    """The run's PyTorch network with images, and the lines about the accuracy of its weights.

    There are at most ``images`` validation images and as many test images. The test split is used only for accuracies.
    It is not opened if the data has other classes than the child.

    Raises:
        DmaskError: in the same cases as `opened_data`, or for an image that cannot be decoded.
    """
    import torch

    from export.verification.reference import HeldOut, Reference, check_accuracy, random_images
    from export.verification.verify import MIN_IMAGES

    record, child = folder.record(), folder.child()
    reference = Reference(
        trained_network(folder).eval(),
        child.digest(),
        hash_path(folder.weights_path),
        record.preprocessing,
        record.class_names,
        torch.empty(0),
        None,
        record.accuracy,
    )
    if data is None and record.data is None:
        return replace(reference, images=random_images(child, MIN_IMAGES)), ()
    opened = opened_data(record, child, data, check_classes=record.accuracy is not None)
    options = record.data_options.model_copy(update={"memory_bytes": 0})  # only the sample is decoded
    own_classes = len(opened.class_names) == child.classes
    own_data = data in (None, record.data) or opened.digest == record.data_digest
    val, _ = opened.read("val", decoded_at(record, child), options, progress, crop=crop_of(record))
    pixels, labels = _sample(val, images, child.resolution)
    reference = replace(reference, images=pixels, labels=labels if own_classes else None)
    if own_classes and "test" in opened.splits:
        note_opening(folder, reference.weights_digest, "dmask verify")
        test, _ = opened.read("test", decoded_at(record, child), options, progress, crop=crop_of(record))
        reference = replace(reference, test=HeldOut(*_sample(test, images, child.resolution), len(test)))
    checks = [check_accuracy(reference, len(val), not own_data)]
    checks += _test_checks(folder, record, reference) if own_data else []
    return reference, tuple(check for check in checks if check)


def _test_checks(folder: RunFolder, record: RunRecord, reference: Reference) -> Iterator[Check | None]:
    """The line that compares the weights with ``test.json``, if that has the same weights, data and split ``test``."""
    from export.verification.reference import check_test_accuracy

    if folder.test_path.exists():
        kept = AccuracyRecord.read(folder.test_path)
        of_kept, own = (kept.weights_sha256, kept.data_digest), (reference.weights_digest, record.data_digest)
        if kept.split == "test" and of_kept == own:
            yield check_test_accuracy(reference, kept.accuracy)


def _sample(images: ImageSet, most: int, resolution: int) -> tuple[Tensor, Tensor]:
    """At most ``most`` random images (N, C, R, R) in 0..1, the same images every time, and their labels (N,)."""
    import torch

    from dmask_mobile.supernet.resolution import subsample

    # The sample is random, because a folder of images is sorted by class.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:most].tolist()
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    found = [(subsample(pixels, resolution), labels) for pixels, labels in images.batches(chunks)]
    return torch.cat([pixels for pixels, _ in found]).float() / 255, torch.cat([labels for _, labels in found])
