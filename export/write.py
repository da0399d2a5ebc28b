"""Writes a child in one format, with a record of the artifact."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast, get_args

from torch import Tensor, nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, ModelDescription, ModelFormat, Precision, hash_path, size_of_path
from dmask_mobile.temporary import full_disk_of, temporary_files_in, temporary_folder, try_to_write
from export.deployable import Deployable
from export.formats.protocols import ExportRequest
from export.formats.registry import format_named
from export.golden import write_golden

MIN_CALIBRATION_IMAGES = 16
SPACE_FOR_CONVERSION = 4
"""The required free disk space, as a multiple of the network's weights; converters write copies."""


class ExportPlan(NamedTuple):
    """The pairs of format and precision that will be exported; ``skipped``: a line for each pair that cannot be."""

    pairs: tuple[tuple[ModelFormat, Precision], ...]
    skipped: tuple[str, ...]


def plan_exports(formats: Sequence[str], precisions: Sequence[str]) -> ExportPlan:
    """The exports for these formats and precisions, each pair once.

    A pair that the format does not support is skipped if other pairs remain.

    Raises:
        DmaskError: for a format that is unknown or not installed, an unknown precision, or if no pair remains.
    """
    if not formats or not precisions:
        raise DmaskError("nothing to export", "name at least one format and one precision")
    for precision in precisions:
        if precision not in get_args(Precision):
            raise DmaskError(f"no precision '{precision}'", f"choose from {', '.join(get_args(Precision))}")
    pairs, refusals = [], []
    for name in cast("tuple[ModelFormat, ...]", tuple(dict.fromkeys(formats))):
        found = format_named(name)
        for precision in cast("tuple[Precision, ...]", tuple(dict.fromkeys(precisions))):
            if precision in found.refused:
                refusals.append(f"format {name} has no {precision}: {found.refused[precision]}")
            else:
                pairs.append((name, precision))
    if not pairs:
        raise DmaskError("; ".join(refusals), "choose another precision or format")
    return ExportPlan(tuple(pairs), tuple(refusals))


def check_request(description: ModelDescription) -> None:
    """Checks everything that is known about a model before data is read or anything is converted.

    Raises:
        DmaskError: for a precision, a layout or an open batch that its format does not support.
    """
    name = description.model_format
    plan_exports([name], [description.precision])
    found = format_named(name)
    if description.preprocessing.layout not in found.layouts:
        raise DmaskError(
            f"format {name} takes its input as {' or '.join(found.layouts)}, not {description.preprocessing.layout}",
            "leave out --layout, or export that format separately",
        )
    if description.batch is None and not found.dynamic_batch:
        raise DmaskError(f"format {name} has a fixed batch of 1", "leave out --dynamic-batch")


def check_calibration(precision: Precision, calibration: Tensor | None) -> None:
    """Checks that there are enough images for the calibration of int8.

    Raises:
        DmaskError: if there are too few.
    """
    if precision == "int8" and (calibration is None or len(calibration) < MIN_CALIBRATION_IMAGES):
        given = 0 if calibration is None else len(calibration)
        raise DmaskError(
            f"the calibration of int8 needs at least {MIN_CALIBRATION_IMAGES} real images, got {given}", "give --data"
        )


def export_child(
    network: nn.Module, description: ModelDescription, folder: Path, calibration: Tensor | None = None
) -> Artifact:
    """Writes the model and its `Artifact` record to ``folder``; returns the record.

    Args:
        network: the child, trained.
        description: format, precision, input and output, and the metadata of the model.
        folder: the folder to write to.
        calibration: images (M, C, R, R) in 0..1 for int8.

    Raises:
        DmaskError: in the same cases as `check_request` and `check_calibration`, if the converter fails, or if the disk
            is full.
    """
    check_request(description)
    check_calibration(description.precision, calibration)
    found = format_named(description.model_format)
    variant = "" if description.precision == "fp32" else f"-{description.precision}"
    path = folder / f"model{variant}{found.suffix}"
    model = Deployable(network, description.preprocessing, description.output)
    images = model.as_input(calibration) if calibration is not None and description.precision == "int8" else None
    start = time.monotonic()
    try:
        with temporary_folder() as temporary, temporary_files_in(temporary):
            found.write(ExportRequest(model, description, images), path)
        artifact = artifact_of(path, description, time.monotonic() - start)
        write_golden(artifact, found.open(path), folder)
        artifact.write(folder / f"{description.model_format}{variant}.artifact.json")
    except Exception as error:  # converters may raise any exception
        needed = SPACE_FOR_CONVERSION * sum(weight.nbytes for weight in network.state_dict().values())
        full = full_disk_of(error) or try_to_write(needed, (folder, Path(tempfile.gettempdir())))
        if full is not None:
            raise DmaskError(
                f"{description.model_format} {description.precision} cannot be written: {full}",
                "free some space in the run's folder and the system's temporary folder; earlier exports are kept",
            ) from error
        if isinstance(error, OSError | DmaskError):  # these explain themselves
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise DmaskError(
            f"{description.model_format} {description.precision} cannot be converted: {reason}",
            "'dmask --debug export ...' shows the whole error; other formats are not affected",
        ) from error
    return artifact


def artifact_of(path: Path, description: ModelDescription, convert_seconds: float = 0.0) -> Artifact:
    """The record of the file at ``path``."""
    return Artifact(
        **dict(description),
        path=path.name,
        sha256=hash_path(path),
        size_bytes=size_of_path(path),
        convert_seconds=round(convert_seconds, 3),
    )
