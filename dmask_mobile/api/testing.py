"""The accuracy of a trained child on the test split, which is opened only once for each set of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, as_path
from dmask_mobile.api.describing import describe_accuracy
from dmask_mobile.api.run_data import crop_of, decoded_at, locks_run, opened_data, trained_network
from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from dmask_mobile.data.source import DataSource
    from dmask_mobile.records.accuracy import AccuracyRecord, Split
    from dmask_mobile.records.openings import OpenedBy
    from dmask_mobile.run import RunFolder


@locks_run("dmask test")
def measure_accuracy(run: AnyPath, *, data: DataSource | None = None, progress: Progress = silent) -> AccuracyRecord:
    """The accuracy of the run's trained child on the test split of its data; it is stored in ``test.json``.

    >>> found = dm.measure_accuracy("runs/a")
    >>> found.split, found.accuracy == dm.Run("runs/a").test.accuracy
    ('val', True)

    The same weights are never tested twice: the stored result is returned. If the data has no test split, the
    validation images are used, and the record says so.

    Args:
        run: the run folder.
        data: the data that the run was trained on; only needed if it was a source object, which a run cannot store.
        progress: is called while images are read.

    Raises:
        DmaskError: if the run has no trained weights or no record of its data, or its data has changed.
    """
    from dmask_mobile.data.images import KnownNormalization
    from dmask_mobile.records.accuracy import AccuracyRecord
    from dmask_mobile.run import RunFolder
    from dmask_mobile.training.evaluation import confusion_of

    folder = RunFolder(as_path(run))
    record, child = folder.record(), folder.child()
    if (data or record.data) is None or record.data_digest is None or record.weights_sha256 is None:
        raise DmaskError(f"'{run}' has no training with known data", "train it first: dmask train RUN --data DATA")
    network = trained_network(folder)
    kept = AccuracyRecord.read(folder.test_path) if folder.test_path.exists() else None
    if kept is not None and (kept.weights_sha256, kept.data_digest) == (record.weights_sha256, record.data_digest):
        return kept
    opened = opened_data(record, child, data)
    if opened.digest != record.data_digest:
        raise DmaskError(f"'{run}' was trained on other data than '{opened.spec}'", "give the data of its training")
    split: Split = "test" if "test" in opened.splits else "val"
    times = 0
    if split == "test":
        earlier = 0 if kept is None else kept.times_opened
        times = max(note_opening(folder, record.weights_sha256, "dmask test"), earlier + 1)
    images, num_skipped = opened.read(
        split, decoded_at(record, child), record.data_options, progress, crop=crop_of(record)
    )
    normalization = KnownNormalization(record.preprocessing.mean, record.preprocessing.std, child.resolution)
    result = AccuracyRecord.from_confusion(
        confusion_of(network, images, normalization, child.classes).tolist(),
        split=split,
        data_digest=record.data_digest,
        weights_sha256=record.weights_sha256,
        class_names=record.class_names,
        num_skipped=num_skipped,
        times_opened=times,
    )
    result.write(folder.test_path)
    describe_accuracy(folder, folder.test_path, result, progress)
    return result


def note_opening(folder: RunFolder, weights_sha256: str, by: OpenedBy) -> int:
    """Records that the test split is opened for these weights; returns how often it was opened, including this time."""
    from dmask_mobile.records.openings import Opening, SplitOpenings

    path = folder.test_openings_path
    earlier = SplitOpenings.read(path) if path.exists() else SplitOpenings()
    openings = earlier.with_opening(Opening(weights_sha256=weights_sha256, by=by, created=now()))
    openings.write(path)
    return openings.count
