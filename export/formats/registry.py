"""The export formats by name, and the format of a file."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import ModelFormat
from export.formats.coreml.reader import quiet_coremltools
from export.formats.coreml.writer import CoreML
from export.formats.executorch.reader import quiet_executorch
from export.formats.executorch.writer import ExecuTorch
from export.formats.litert.reader import quiet_litert
from export.formats.litert.writer import LiteRT
from export.formats.ncnn.writer import Ncnn
from export.formats.onnx.writer import Onnx
from export.formats.protocols import Format

FORMATS: dict[ModelFormat, Format] = {
    "onnx": Onnx(),
    "coreml": CoreML(),
    "litert": LiteRT(),
    "executorch": ExecuTorch(),
    "ncnn": Ncnn(),
}

QUIET: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "coremltools": quiet_coremltools,
    "litert_torch": quiet_litert,
    "executorch": quiet_executorch,
}
"""Packages that print irrelevant messages when they are imported."""


def format_named(name: str) -> Format:
    """The format ``name``, after a check that its package is installed.

    Raises:
        DmaskError: for an unknown name, or a format whose package is not installed.
    """
    if name not in FORMATS:
        raise DmaskError(f"no export format '{name}'", f"choose from {', '.join(FORMATS)}")
    found = FORMATS[name]
    try:
        with QUIET.get(found.package, contextlib.nullcontext)():
            importlib.import_module(found.package)
    except ImportError as error:
        wanted = f"'dmask-mobile[{found.extra}]'" if found.extra else found.package
        raise DmaskError(
            f"format {name} needs the package {found.package}: {error}", f"pip install {wanted}"
        ) from error
    return found


def format_of(path: Path) -> Format:
    """The format of an exported file, by its suffix.

    Raises:
        DmaskError: if there is no such file, or its suffix belongs to no format.
    """
    if not path.exists():
        raise DmaskError(f"no file '{path}'", "give a run folder or an exported model")
    for name, found in FORMATS.items():
        if path.suffix == found.suffix:
            return format_named(name)
    if path.is_dir():
        raise DmaskError(f"'{path}' is not a run folder: it has no run.json", "give a run folder or an exported model")
    endings = ", ".join(found.suffix for found in FORMATS.values())
    raise DmaskError(f"'{path}' is not an exported model", f"models end in {endings}")
