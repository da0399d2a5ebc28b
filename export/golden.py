"""A golden pair for each exported model: an input and the model's output for it, for the unit test of an app.

The files are in ``exports/golden/``: ``photo.png``, a synthetic photograph; for each model ``LABEL.input``, the input
made from the photograph by the rule of training (raw float32, little-endian), and ``LABEL.json``, the record with the
expected output.
"""

from __future__ import annotations

import math
from math import prod
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import Field, PositiveInt
from torch import Tensor

from dmask_mobile.data.decoding import BadImageError, read_square
from dmask_mobile.errors import DmaskError
from dmask_mobile.files import read_bytes
from dmask_mobile.records.artifact import Artifact, Precision
from dmask_mobile.records.base import FileRecord, temporary_beside
from dmask_mobile.records.names import FileName
from dmask_mobile.supernet.resolution import subsample
from export.deployable import as_input
from export.formats.limits import MAX_TENSOR_VALUES
from export.formats.protocols import ExportedModel

FOLDER, PHOTO = "golden", "photo.png"
MAX_PHOTO_BYTES = 64 * 2**20
INPUT_TOLERANCE = 0.02
"""The mean difference of an app's input from the golden one, of the range; another filter causes half of it."""
OUTPUT_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.1}
"""As a share of the output's range: processors add up in different orders and round int8 at different steps."""


class GoldenRecord(FileRecord):
    """The output of an exported model for one input.

    ``artifact``: the file name of the model; ``artifact_sha256``: the SHA-256 of the file. ``photo``: None for a
    network whose input is not RGB. ``input``: a file of ``input_shape`` float32 numbers. ``output``: the expected
    output; each value may differ by ``output_tolerance``. ``label``: the class with the highest score.
    ``input_tolerance``: the mean absolute difference from ``input`` that an app's own input for ``photo`` may have.
    """

    file_format: ClassVar[str] = "dmask-golden"

    artifact: FileName
    artifact_sha256: str
    photo: FileName | None
    input: FileName
    input_shape: tuple[PositiveInt, ...]
    input_tolerance: float = Field(gt=0)
    output: tuple[float, ...] = Field(min_length=1)
    output_tolerance: float = Field(gt=0)
    label: str


class GoldenFinding(NamedTuple):
    """The result of a comparison of an artifact with its golden pair.

    ``error``: the largest difference of an output, None if nothing could be compared. ``allowed``: the limit of this
    difference. ``problem``: why nothing could be compared, or what else is wrong with the pair; empty if there is no
    problem.
    """

    error: float | None
    allowed: float
    problem: str = ""


def write_golden(artifact: Artifact, model: ExportedModel, folder: Path) -> None:
    """Writes the artifact's golden pair to ``golden/`` in the folder of exports.

    Args:
        artifact: the record of the model.
        model: the file, opened.
        folder: the folder of exports.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    photo = PHOTO if artifact.child.in_channels == 3 else None
    if photo is not None:
        with temporary_beside(place / photo) as temporary:
            made_up_photo(_source_resolution(artifact)).save(temporary, format="PNG")
    image = _input_without_photo(artifact) if photo is None else _input_of_photo(artifact, place / photo)
    (scores,) = model.run(image).values()
    output = scores.flatten()
    input_name = f"{golden_stem(artifact)}.input"
    with temporary_beside(place / input_name) as temporary:
        temporary.write_bytes(image.numpy().astype("<f4").tobytes())
    spread = float(output.max() - output.min())
    GoldenRecord(
        artifact=artifact.path,
        artifact_sha256=artifact.sha256,
        photo=photo,
        input=input_name,
        input_shape=tuple(image.shape),
        input_tolerance=INPUT_TOLERANCE * artifact.preprocessing.input_range[1],
        output=tuple(output.tolist()),
        output_tolerance=max(OUTPUT_TOLERANCE[artifact.precision] * spread, 1e-6),
        label=artifact.class_names[int(output.argmax())],
    ).write(place / f"{golden_stem(artifact)}.json")


def check_golden(artifact: Artifact, model: ExportedModel, folder: Path) -> GoldenFinding:
    """Compares an artifact with its golden pair, and the input of the pair with its photograph.

    Args:
        artifact: the record of the model.
        model: the file, opened.
        folder: the folder of exports, which contains ``golden/``.

    Raises:
        DmaskError: if a file of the pair is damaged.
    """
    path = folder / FOLDER / f"{golden_stem(artifact)}.json"
    if not path.exists():
        return GoldenFinding(None, 0.0, f"no golden pair '{FOLDER}/{path.name}'; export the model again")
    record = GoldenRecord.read(path)
    if record.artifact_sha256 != artifact.sha256 or record.artifact != artifact.path:
        return GoldenFinding(None, record.output_tolerance, "the golden pair belongs to another file; export it again")
    image = _read_input(record, path.with_name(record.input))
    try:
        (scores,) = model.run(image).values()
        found, expected = scores.flatten(), torch.tensor(record.output)
        if found.shape != expected.shape:
            raise ValueError(f"it returns {len(found)} scores, but the golden output has {len(expected)}")
    except Exception as error:  # each runtime has its own exceptions
        reason = " ".join(str(error).split())
        return GoldenFinding(None, record.output_tolerance, f"the model does not run on its golden input: {reason}")
    largest = (found - expected).abs().max().nan_to_num(math.inf).item()
    return GoldenFinding(largest, record.output_tolerance, _problem_of_pair(record, artifact, image, path.parent))


def _problem_of_pair(record: GoldenRecord, artifact: Artifact, image: Tensor, place: Path) -> str:
    """The problem of a golden pair itself; empty if there is none."""
    best = max(range(len(record.output)), key=record.output.__getitem__)
    if record.label != artifact.class_names[best]:
        return "the golden label is not the class of the highest score"
    try:
        if record.photo is None or torch.equal(image, _input_of_photo(artifact, place / record.photo)):
            return ""
    except (OSError, BadImageError) as error:
        return f"'{record.photo}' cannot be opened: {error}"
    return f"the golden input is not the result of the preprocessing of '{record.photo}'"


def golden_stem(artifact: Artifact) -> str:
    """The name of an artifact's golden files, without their suffixes."""
    return artifact.label.replace(" ", "-")


def _source_resolution(artifact: Artifact) -> int:
    return max(artifact.child.resolution, artifact.preprocessing.source_resolution or 0)


def _input_of_photo(artifact: Artifact, path: Path) -> Tensor:
    """The artifact's input (1, ...) made from a photograph by the rule of training."""
    resized = artifact.preprocessing.resize_resolution
    content = read_bytes(path, MAX_PHOTO_BYTES)
    square = torch.from_numpy(read_square(content, _source_resolution(artifact), resized))
    image = subsample(square[None], artifact.child.resolution).float() / 255
    return as_input(image, artifact.preprocessing)


def _input_without_photo(artifact: Artifact) -> Tensor:
    """An input (1, ...) with the levels 0..255 in sequence, for a network whose input is not RGB."""
    shape = artifact.child.input_shape
    levels = torch.arange(prod(shape)).reshape(shape) * 37 % 256
    return as_input(levels.float() / 255, artifact.preprocessing)


def _read_input(record: GoldenRecord, path: Path) -> Tensor:
    """The golden input.

    Raises:
        DmaskError: if the size of its file differs from the record.
    """
    content = read_bytes(path, 4 * MAX_TENSOR_VALUES)
    if len(content) != 4 * prod(record.input_shape):
        raise DmaskError(
            f"'{path}' must have {4 * prod(record.input_shape)} bytes, found {len(content)}", "export the model again"
        )
    return torch.from_numpy(np.frombuffer(content, "<f4").astype(np.float32)).reshape(record.input_shape)


def made_up_photo(resolution: int) -> Image.Image:
    """A 4:3 picture that reveals every mistake in the preprocessing of a photograph.

    Its shorter side is one and a half times ``resolution``, so that it must be scaled down. It changes under
    stretching, mirroring, rotation by 90 degrees and swapping of channels.
    """
    height = max(48, resolution * 3 // 2)
    width = height * 4 // 3
    y, x = np.mgrid[0:height, 0:width] / height
    red = x / (width / height)
    green = 0.5 + 0.5 * np.sin(12 * np.hypot(x - 0.4, y - 0.7))
    blue = np.where((x - 0.9) ** 2 + (y - 0.3) ** 2 < 0.06, 0.9, 0.3 * y)
    return Image.fromarray((255 * np.stack([red, green, blue], axis=2)).astype(np.uint8))
