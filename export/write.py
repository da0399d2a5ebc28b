"""Writes a child in one format and says what was written."""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor, nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, ModelDescription, hash_path, size_of_path
from export.deployable import Deployable
from export.formats.protocols import ExportRequest
from export.formats.registry import format_named
from export.golden import write_golden

MIN_CALIBRATION_IMAGES = 16


def check_request(description: ModelDescription, calibration: Tensor | None) -> None:
    """Checks what can be told before anything is converted.

    Raises:
        DmaskError: for a format that is unknown or not installed, and for what it does not have: the precision, the
            layout, an open batch; for int8 without images to calibrate on.
    """
    name, precision = description.model_format, description.precision
    found = format_named(name)
    if precision in found.refused:
        has = ", ".join(p for p in ("fp32", "fp16", "int8") if p not in found.refused)
        raise DmaskError(f"format {name} has no {precision}: {found.refused[precision]}", f"it has {has}")
    if description.preprocessing.layout not in found.layouts:
        raise DmaskError(
            f"format {name} takes its input as {' or '.join(found.layouts)}, not {description.preprocessing.layout}",
            "leave --layout out, or export that format by itself",
        )
    if description.batch is None and not found.dynamic_batch:
        raise DmaskError(f"format {name} has a fixed batch of 1", "leave --dynamic-batch out")
    if precision == "int8" and (calibration is None or len(calibration) < MIN_CALIBRATION_IMAGES):
        given = 0 if calibration is None else len(calibration)
        raise DmaskError(
            f"int8 is calibrated on at least {MIN_CALIBRATION_IMAGES} real images, got {given}", "give --data"
        )


def export_child(
    network: nn.Module, description: ModelDescription, folder: Path, calibration: Tensor | None = None
) -> Artifact:
    """Writes the model and its `Artifact` record into ``folder``; returns the record.

    Args:
        network: the child, trained.
        description: format, precision, input and output, and what travels with the model.
        folder: where to.
        calibration: images (M, C, R, R) in 0..1 for int8.

    Raises:
        DmaskError: as `check_request`, and when the converter fails.
    """
    check_request(description, calibration)
    found = format_named(description.model_format)
    variant = "" if description.precision == "fp32" else f"-{description.precision}"
    path = folder / f"model{variant}{found.suffix}"
    model = Deployable(network, description.preprocessing, description.output)
    images = model.as_input(calibration) if calibration is not None and description.precision == "int8" else None
    start = time.monotonic()
    try:
        found.write(ExportRequest(model, description, images), path)
    except (OSError, DmaskError):  # a full disk is no fault of the converter, and ours explain themselves
        raise
    except Exception as error:  # converters raise whatever their parts raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise DmaskError(
            f"{description.model_format} {description.precision} does not convert: {reason}",
            "see it whole with dmask --debug export ...; the other formats do not depend on it",
        ) from error
    artifact = artifact_of(path, description, time.monotonic() - start)
    write_golden(artifact, found.open(path), folder)
    artifact.write(folder / f"{description.model_format}{variant}.artifact.json")
    return artifact


def artifact_of(path: Path, description: ModelDescription, convert_seconds: float = 0.0) -> Artifact:
    """The record of the file that lies at ``path``."""
    return Artifact(
        **dict(description),
        path=path.name,
        sha256=hash_path(path),
        size_bytes=size_of_path(path),
        convert_seconds=round(convert_seconds, 3),
    )
