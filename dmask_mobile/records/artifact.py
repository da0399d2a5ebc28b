"""`ModelDescription`: the description inside an exported model; `Artifact`: the description and the file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.base import MAX_RECORD_BYTES, FileRecord, Record, describe_validation_error
from dmask_mobile.records.block import MAX_SIZE, Size
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.names import ClassNames, FileName, Line
from dmask_mobile.records.setting_names import Layout as Layout
from dmask_mobile.records.setting_names import ModelFormat as ModelFormat
from dmask_mobile.records.setting_names import Precision as Precision
from dmask_mobile.records.space_options import MIN_CROP

Output = Literal["logits", "probabilities"]
InputRange = tuple[float, float]
UNIT_RANGE: InputRange = (0.0, 1.0)
PIXEL_RANGE: InputRange = (0.0, 255.0)
MAX_STATISTIC = 1e6  # a mean or deviation of pixels in 0..1; beyond it or below its inverse, float32 loses the pixels


class Preprocessing(Record):
    """What an app must do to a photograph before it calls the model. The steps are in the order used in training.

    1. ``orientation``: the orientation in the EXIF data is applied, or the pixels are used as they are stored.
    2. ``colors``, ``transparency``: the pixels are converted to RGB with 8 bits a channel. Transparent pixels are
       blended with white, or the transparency channel is dropped.
    3. ``resize``: the shorter side becomes ``resize_resolution`` pixels (absent: ``source_resolution``; None there: R,
       the child's resolution), and the longer side becomes ``floor(that * longer / shorter)``.
    4. ``interpolation``: a triangle (bilinear) filter with antialiasing: half its width is ``max(1, old size / new
       size)`` old pixels. The result is rounded to 8 bits.
    5. ``crop``: the central square of ``source_resolution`` pixels. Its left and upper edges lie at ``(size -
       source_resolution) / 2``; halves are rounded to even.
    6. If ``source_resolution`` is larger than R, nearest-neighbour subsampling: position i of the input is position
       ``floor(i * source_resolution / R)`` of the square.
    7. ``input_range``, ``layout``: values are scaled from 0..255 to this range as float32, with the axes in this order.

    The model itself then computes ``(x / input_range[1] - mean) / std`` for each channel.
    """

    layout: Layout = "NCHW"
    orientation: Literal["as stored", "EXIF applied"] = "as stored"
    colors: Literal["RGB"] = "RGB"
    transparency: Literal["dropped", "on white"] = "dropped"
    resize: Literal["shorter side"] = "shorter side"
    interpolation: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    crop: Literal["center"] = "center"
    input_range: InputRange = UNIT_RANGE
    mean: tuple[Annotated[float, Field(ge=-MAX_STATISTIC, le=MAX_STATISTIC)], ...]
    std: tuple[Annotated[float, Field(ge=1 / MAX_STATISTIC, le=MAX_STATISTIC)], ...]
    source_resolution: Size | None = None
    resize_resolution: int | None = Field(default=None, ge=1, le=round(MAX_SIZE / MIN_CROP))

    @model_serializer(mode="wrap")
    def _without_default_resize(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        fields: dict[str, Any] = handler(self)
        return fields if self.resize_resolution else {k: v for k, v in fields.items() if k != "resize_resolution"}

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std need a number for each channel, got {len(self.mean)} and {len(self.std)} numbers"
            )
        if self.input_range not in (UNIT_RANGE, PIXEL_RANGE):
            raise ValueError(f"input_range must be 0..1 or 0..255, got {shown(self.input_range)}")
        if self.resize_resolution is not None and self.resize_resolution < (self.source_resolution or 0):
            raise ValueError("resize_resolution must be at least source_resolution")
        return self


class LatencyPrediction(Record):
    """A child's latency as a table predicts it: median and one standard deviation in milliseconds, and the table."""

    ms: float = Field(gt=0)
    spread_ms: float = Field(ge=0)
    table_digest: str
    device: str
    runtime: str
    precision: Precision
    threads: int


class ModelDescription(Record):
    """Everything that is known about an exported model apart from its file; stored in the model's own metadata.

    ``weights_digest``: SHA-256 of the trained weights (``child.safetensors``). ``batch``: the batch size; None if the
    model accepts any. ``accuracy``: top-1 accuracy of the PyTorch network on the validation images.
    """

    model_format: ModelFormat
    precision: Precision = "fp32"
    child: ChildSpec
    child_digest: str
    weights_digest: str
    preprocessing: Preprocessing
    output: Output = "logits"
    batch: int | None = 1
    class_names: ClassNames
    accuracy: float | None = None
    latency: LatencyPrediction | None = None
    license: Line = ""
    author: Line = ""

    @model_validator(mode="after")
    def _check_class_names(self) -> Self:
        if len(self.class_names) != self.child.classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.child.classes} classes")
        return self

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """The shape of one image, batch 1, in the model's layout."""
        batch, channels, height, width = self.child.input_shape
        if self.preprocessing.layout == "NHWC":
            return (batch, height, width, channels)
        return (batch, channels, height, width)

    def to_metadata(self) -> dict[str, str]:
        """Strings for a model's metadata: the whole description, and its main parts again for people who read them."""
        return {
            "dmask.description": json.dumps(self.model_dump(mode="json"), sort_keys=True),
            "dmask.child_digest": self.child_digest,
            "dmask.precision": self.precision,
            "dmask.output": self.output,
            "dmask.class_names": json.dumps(self.class_names),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], source: str) -> Self:
        """The description read from a model's metadata.

        Raises:
            DmaskError: if there is no description, or it breaks a rule of the record.
        """
        text = metadata.get("dmask.description")
        if text is None:
            raise DmaskError(
                f"'{source}' contains no description by dmask-mobile", "export the model with dmask export"
            )
        if len(text) > MAX_RECORD_BYTES:
            raise DmaskError(
                f"the description in '{source}' has {len(text):,} characters; at most {MAX_RECORD_BYTES:,} are allowed",
                "export it again",
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DmaskError(
                f"the description in '{source}' is damaged: {describe_validation_error(error)}", "export it again"
            ) from error


class Artifact(ModelDescription, FileRecord):
    """One exported model. ``path`` is relative to the folder of this record.

    ``convert_seconds``: the duration of the conversion.
    """

    file_format: ClassVar[str] = "dmask-artifact"
    file_version: ClassVar[int] = 3  # since version 3, preprocessing describes how a photograph becomes an input
    oldest_version: ClassVar[int | None] = 2

    path: FileName
    sha256: str
    size_bytes: int = Field(gt=0)
    convert_seconds: float = Field(ge=0)

    @property
    def label(self) -> str:
        """The name in reports: the format, and the precision if it is not fp32."""
        return self.model_format if self.precision == "fp32" else f"{self.model_format} {self.precision}"

    def description(self) -> ModelDescription:
        """The part that is stored inside the model file."""
        return ModelDescription.model_validate(self.model_dump(include=set(ModelDescription.model_fields)))


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative paths and contents in sorted order."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def size_of_path(path: Path) -> int:
    """The size in bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
