"""Exports a trained child to formats for phones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmask_mobile.api.arguments import AnyData, AnyPath, AnyPaths, Words, as_path, as_words
from dmask_mobile.api.describing import renew_card
from dmask_mobile.api.run_data import check_not_sweep, data_of, locks_run, trained_network
from dmask_mobile.api.runs import Run
from dmask_mobile.clock import now
from dmask_mobile.cost_names import named_tables, our_package
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import (
    UNIT_RANGE,
    Artifact,
    InputRange,
    LatencyPrediction,
    Layout,
    ModelDescription,
    ModelFormat,
    Output,
    Precision,
    Preprocessing,
    hash_path,
)
from dmask_mobile.records.base import remove_stale_temporaries
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.run import RunFolder, RunRecord, installed_versions

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ExportSettings(NamedTuple):
    """Input, output and metadata of an exported model.

    ``input_range``: 0..1 or 0..255. ``dynamic_batch``: allow any batch size instead of 1. ``calibration_images``: the
    number of random training images for int8. ``samples``: platforms (android, ios) for which a source file that uses
    the model is written.
    """

    layout: Layout = "NCHW"
    input_range: InputRange = UNIT_RANGE
    output: Output = "logits"
    dynamic_batch: bool = False
    calibration_images: int = 256
    license: str = ""
    author: str = ""
    samples: Words = ()


@locks_run("dmask export", new=True)
def start_run(child: ChildSpec, run: AnyPath) -> Run:
    """A new run for a network that was not found by a search, with random weights (seed 0).

    >>> child = dm.load_space("demo").child(dm.load_space("demo").smallest(), "smallest")
    >>> dm.start_run(child, "runs/smallest").child == child
    True

    Raises:
        DmaskError: if the folder contains a run of another child, or is the folder of a sweep.
    """
    from dmask_mobile.nets.build import build
    from dmask_mobile.training.checkpoint import save_weights

    folder = RunFolder(as_path(run))
    check_not_sweep(folder)
    if folder.child_path.exists():
        if folder.child().digest() != child.digest():
            raise DmaskError(f"'{run}' contains another child", "choose another folder with -o")
        return Run(run)
    channels = child.in_channels
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
    save_weights(folder.weights_path, build(child), child.digest())
    RunRecord(
        created=now(),
        versions=installed_versions(),
        preprocessing=Preprocessing(mean=mean, std=std),
        class_names=tuple(str(index) for index in range(child.classes)),
        weights_sha256=hash_path(folder.weights_path),
    ).write(folder.record_path)
    child.write(folder.child_path)
    return Run(run)


@locks_run("dmask export")
def export(
    run: AnyPath,
    formats: Words,
    precisions: Words = ("fp32",),
    *,
    data: AnyData | None = None,
    tables: AnyPaths = (),
    settings: ExportSettings | None = None,
    progress: Progress = silent,
) -> tuple[Artifact, ...]:
    """Exports the run's child in each of ``formats`` and ``precisions`` into ``exports/``, with a record for each.

    >>> artifacts = dm.export("runs/a", ["onnx", "coreml"])
    >>> [(artifact.label, artifact.path) for artifact in artifacts]
    [('onnx', 'model.onnx'), ('coreml', 'model.mlpackage')]

    Args:
        run: the run folder.
        formats: names of `export.formats.registry.FORMATS`.
        precisions: fp32, fp16, int8.
        data: the images for the calibration of int8; the default is the training data of the child.
        tables: the tables whose predictions are stored in the models; the default is the tables of the search.
        settings: input, output, licence and so on.
        progress: is called after each export.

    Raises:
        DmaskError: before data is read or anything is written, for a format that is unknown, not installed or does not
            support the settings (if other pairs of format and precision remain, such a pair is skipped instead, see
            `skipped_exports`); for a child without weights; if a converter fails; if the disk is full.
    """
    our_package("export")
    from export.golden import FOLDER as GOLDEN_FOLDER
    from export.samples import check_sample, write_sample
    from export.write import check_calibration, check_request, export_child, plan_exports

    settings = settings or ExportSettings()
    pairs = plan_exports(as_words(formats), as_words(precisions)).pairs
    folder = RunFolder(as_path(run))
    record, child = folder.record(), folder.child()
    if not folder.weights_path.exists():
        raise DmaskError(f"'{run}' has no trained weights", "train the child first: dmask train RUN")
    weights_digest = hash_path(folder.weights_path)
    descriptions = [
        describe_model(record, child, weights_digest, name, precision, settings) for name, precision in pairs
    ]
    for description in descriptions:
        check_request(description)
    for platform in as_words(settings.samples):
        check_sample(platform, [name for name, _ in pairs], child.in_channels)
    calibration = None
    if any(precision == "int8" for _, precision in pairs):
        calibration = _calibration_images(record, child, data, settings.calibration_images)
        check_calibration("int8", calibration)
    predictions = _predictions(child, named_tables(tables) or folder.tables())
    for place in (folder.exports, folder.exports / GOLDEN_FOLDER):
        remove_stale_temporaries(place)
    network = trained_network(folder)
    artifacts = []
    for number, description in enumerate(descriptions, start=1):
        latency = predictions.get((description.model_format, description.precision))
        described = description.model_copy(update={"latency": latency})
        artifacts.append(export_child(network, described, folder.exports, calibration))
        logger.info("'%s': exported %s", folder.path, artifacts[-1].path)
        progress("export", number, len(descriptions), artifacts[-1].label)
    for platform in as_words(settings.samples):
        write_sample(platform, artifacts, folder.exports)
    renew_card(folder, progress, settings.license)
    return tuple(artifacts)


def skipped_exports(formats: Words, precisions: Words) -> tuple[str, ...]:
    """The pairs of format and precision that `export` skips because the format lacks the precision; a line for each.

    >>> len(dm.skipped_exports(["onnx", "ncnn"], ["fp32", "int8"]))
    1

    Raises:
        DmaskError: for formats and precisions that `export` also refuses.
    """
    our_package("export")
    from export.write import plan_exports

    return plan_exports(as_words(formats), as_words(precisions)).skipped


def describe_model(
    record: RunRecord, child: ChildSpec, weights_digest: str, name: str, precision: str, settings: ExportSettings
) -> ModelDescription:
    """The description of the model in one format and precision, without its latency.

    Raises:
        ValidationError: for invalid values, for example if the number of class names is not the number of classes.
    """
    taken = {"layout": settings.layout, "input_range": settings.input_range}
    return ModelDescription.model_validate(
        {
            "model_format": name,
            "precision": precision,
            "child": child,
            "child_digest": child.digest(),
            "weights_digest": weights_digest,
            "preprocessing": record.preprocessing.model_copy(update=taken),
            "output": settings.output,
            "batch": None if settings.dynamic_batch else 1,
            "class_names": record.class_names,
            "accuracy": record.accuracy,
            "license": settings.license,
            "author": settings.author,
        }
    )


def _calibration_images(record: RunRecord, child: ChildSpec, data: AnyData | None, count: int) -> Tensor:
    """Random training images (M, C, R, R) in 0..1; the same images every time."""
    from dmask_mobile.data.images import seen

    images = data_of(record, child, data, check_classes=record.accuracy is not None)
    return seen(images.train.some(count).pixels(), images)


def _predictions(
    child: ChildSpec, tables: Mapping[str, Path]
) -> dict[tuple[ModelFormat, Precision], LatencyPrediction]:
    """The tables' predictions for the child by format and precision; the first table of each is used."""
    if not tables:
        return {}
    our_package("latency_tables")
    from latency_tables.profiling.table_probe import predict
    from latency_tables.runtimes.registry import runtime_named
    from latency_tables.table.table import LatencyTable

    found: dict[tuple[ModelFormat, Precision], LatencyPrediction] = {}
    for path in tables.values():
        table = LatencyTable.read(path)
        key = runtime_named(table.head.runtime).model_format, table.head.precision
        found.setdefault(key, predict(table, child))
    return found
