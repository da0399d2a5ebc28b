"""Reads the files of a Core ML package without coremltools, whose reader adds a manifest if it is missing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dmask_mobile.files import parse_json, read_bytes, read_text
from export.formats.limits import MAX_MODEL_BYTES, MAX_TEXT_BYTES

MANIFEST = "Manifest.json"
ALIGNMENT = 64  # bytes; of the parts of a weights file
BLOB_HEADER, BLOB_SENTINEL = struct.Struct("<IIQQ"), 0xDEADBEEF  # sentinel, type, size and position of the data


class Package(NamedTuple):
    """The content of a package.

    ``specification``: the content of its model file. ``weights``: the folder of its weights. ``unused_bytes``: bytes of
    files that the manifest does not name, and bytes after the last weights.
    """

    specification: bytes
    weights: Path
    unused_bytes: int


def read_package(path: Path) -> Package:
    """The parts of a package.

    Raises:
        OSError: if a file is missing.
        ValueError: for a damaged manifest, or one that names a file outside the package.
    """
    manifest = parse_json(read_text(path / MANIFEST, MAX_TEXT_BYTES))
    items = {name: _inside(path, item["path"]) for name, item in manifest["itemInfoEntries"].items()}
    root = items[manifest["rootModelIdentifier"]]
    named = {path / MANIFEST, root}
    weights = root.parent / "weights"
    unused = 0
    for file in _files(weights):
        named.add(file)
        content = read_bytes(file, MAX_MODEL_BYTES)
        unused += len(content) - _end_of_blobs(content)
    unused += sum(file.stat().st_size for file in _files(path) if file not in named)
    return Package(read_bytes(root, MAX_MODEL_BYTES), weights, unused)


def _inside(path: Path, item: Any) -> Path:
    """The path of an item of the manifest."""
    parts = PurePosixPath(item).parts
    if not parts or ".." in parts or PurePosixPath(item).is_absolute():
        raise ValueError(f"its manifest names '{item}', which is not inside the package")
    return path.joinpath("Data", *parts)


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder of the package; links are refused, because they could lead out of it."""
    for file in sorted(folder.rglob("*")):
        if file.is_symlink():
            raise ValueError(f"'{file.name}' in it is a symbolic link")
        if not file.is_dir():
            yield file


def _end_of_blobs(content: bytes) -> int:
    """The end of the last tensor in a weights file (coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp).

    Raises:
        ValueError: if the file does not contain as many tensors as it states.
    """
    end = ALIGNMENT
    for number in range(int.from_bytes(content[:4], "little")):
        place = -(-end // ALIGNMENT) * ALIGNMENT
        header = content[place : place + BLOB_HEADER.size]
        if len(header) < BLOB_HEADER.size or BLOB_HEADER.unpack(header)[0] != BLOB_SENTINEL:
            raise ValueError(f"tensor {number} in its weights file is missing")
        _, _, size, start = BLOB_HEADER.unpack(header)
        end = start + size
        if not place < start <= end <= len(content):
            raise ValueError(f"tensor {number} in its weights file is outside the file")
    return end
