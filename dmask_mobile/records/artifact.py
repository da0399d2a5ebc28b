"""`Artifact`: an exported model file and what is known of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from dmask_mobile.records.base import FileRecord, Record


class Preprocessing(Record):
    """What the model expects, and what its graph does to it: RGB, (N, C, R, R), values in ``input_range``.

    ``source_resolution``: pixels that training images were scaled to; where it is larger than R, the model saw their
    nearest-neighbour subsample (position i of the input is position ``floor(i * source_resolution / R)``).
    """

    layout: Literal["NCHW"] = "NCHW"
    colors: Literal["RGB"] = "RGB"
    input_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source_resolution: int | None = None


class Artifact(FileRecord):
    """One exported model. ``path`` is relative to the folder of this record."""

    file_format: ClassVar[str] = "dmask-artifact"

    model_format: Literal["onnx", "coreml"]
    child_digest: str
    path: str
    sha256: str
    size_bytes: int = Field(gt=0)
    precision: Literal["fp32"] = "fp32"
    input_shape: tuple[int, int, int, int]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative paths and contents in sorted order."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def size_of_path(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
