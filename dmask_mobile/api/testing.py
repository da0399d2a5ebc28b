"""The accuracy of a trained child on the test split, which is opened once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, as_path
from dmask_mobile.api.run_data import decoded_at, locks_run, trained_network
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from dmask_mobile.records.accuracy import AccuracyRecord

CONFIDENCE = 0.95


@locks_run("dmask test")
def measure_accuracy(run: AnyPath, *, progress: Progress = silent) -> AccuracyRecord:
    """The accuracy of the run's trained child on the test split of its data, kept in ``test.json``.

    The same weights are never tested twice: what is kept is given back. Where the data has no test split, the
    validation images serve, and the record says so.

    Args:
        run: the run folder.
        progress: told while images are read.

    Raises:
        DmaskError: when the run has no trained weights or names no data, and when its data has changed.
    """
    from scipy.stats import binomtest

    from dmask_mobile.data.images import KnownNormalization
    from dmask_mobile.data.load import load_data, load_test
    from dmask_mobile.records.accuracy import AccuracyRecord
    from dmask_mobile.run import RunFolder
    from dmask_mobile.training.train import confusion_of

    folder = RunFolder(as_path(run))
    record, child = folder.record(), folder.child()
    if record.data is None or record.data_digest is None or record.weights_sha256 is None:
        raise DmaskError(
            f"'{run}' was not trained on data that it names", "train it first: dmask train RUN --data DATA"
        )
    network = trained_network(folder)
    kept = AccuracyRecord.read(folder.test_path) if folder.test_path.exists() else None
    if kept is not None and (kept.weights_sha256, kept.data_digest) == (record.weights_sha256, record.data_digest):
        return kept
    found = load_test(record.data, record.data_digest, decoded_at(record, child), record.data_options, progress)
    if found is None:
        images, num_skipped = load_data(record.data, decoded_at(record, child), record.data_options, progress).val, 0
    else:
        images, num_skipped = found
    normalization = KnownNormalization(record.preprocessing.mean, record.preprocessing.std, child.resolution)
    confusion_KK = confusion_of(network, images, normalization, child.classes)
    correct, count = int(confusion_KK.diagonal().sum()), int(confusion_KK.sum())
    interval = binomtest(correct, count).proportion_ci(CONFIDENCE, "wilson")
    result = AccuracyRecord(
        split="val" if found is None else "test",
        data_digest=record.data_digest,
        weights_sha256=record.weights_sha256,
        class_names=record.class_names,
        confusion=tuple(map(tuple, confusion_KK.tolist())),
        accuracy=correct / count,
        interval=(interval.low, interval.high),
        num_skipped=num_skipped,
        times_opened=1 if kept is None else kept.times_opened + 1,
    )
    result.write(folder.test_path)
    return result
