"""The formats: one entry for each, with what writes it, what runs it and what counts on it."""

from __future__ import annotations

import contextlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError
from export.deployable import Deployable
from export.graph_counts import Counts, count_coreml, count_onnx
from export.to_coreml import quiet_coremltools

Shape = tuple[int, int, int, int]


class ExportedModel(ABC):
    """An artifact opened for verification."""

    @abstractmethod
    def scores(self, images_NCRR: Tensor) -> Tensor:
        """Class scores (N, classes) of images in 0..1."""

    @abstractmethod
    def counts(self) -> Counts:
        """Multiply-adds and weights, counted on the artifact."""

    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """The artifact's own metadata."""


class Format(ABC):
    """One export format."""

    suffix: str
    package: str

    @abstractmethod
    def write(self, model: Deployable, shape: Shape, path: Path, metadata: Mapping[str, str]) -> None:
        """Exports ``model`` to ``path``."""

    @abstractmethod
    def open(self, path: Path) -> ExportedModel:
        """The artifact at ``path``, in the form that can be verified on this machine."""


class _OnnxModel(ExportedModel):
    def __init__(self, path: Path) -> None:
        import onnx
        import onnxruntime

        try:
            self._metadata = {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # both libraries raise their own C++ errors
            raise DmaskError(f"'{path}' does not load as an ONNX model: {error}", "export it again") from error
        self._path = path

    def scores(self, images_NCRR: Tensor) -> Tensor:
        rows = [self._session.run(None, {"input": image[None].numpy()})[0] for image in images_NCRR]
        return torch.cat([torch.from_numpy(row) for row in rows])

    def counts(self) -> Counts:
        return count_onnx(self._path)

    def metadata(self) -> dict[str, str]:
        return self._metadata


class _CoreMLModel(ExportedModel):
    def __init__(self, path: Path) -> None:
        from export.coreml_evaluator import CoreMLProgram

        self._program = CoreMLProgram(path)

    @torch.no_grad()
    def scores(self, images_NCRR: Tensor) -> Tensor:
        return torch.cat([self._program(image[None]) for image in images_NCRR])

    def counts(self) -> Counts:
        return count_coreml(self._program)

    def metadata(self) -> dict[str, str]:
        return self._program.metadata


class _Onnx(Format):
    suffix = ".onnx"
    package = "onnx"

    def write(self, model: Deployable, shape: Shape, path: Path, metadata: Mapping[str, str]) -> None:
        from export.to_onnx import to_onnx, write_onnx

        write_onnx(to_onnx(model, shape), path, metadata)

    def open(self, path: Path) -> ExportedModel:
        return _OnnxModel(path)


class _CoreML(Format):
    suffix = ".mlpackage"
    package = "coremltools"

    def write(self, model: Deployable, shape: Shape, path: Path, metadata: Mapping[str, str]) -> None:
        from export.to_coreml import write_coreml

        write_coreml(model, shape, path, metadata)

    def open(self, path: Path) -> ExportedModel:
        return _CoreMLModel(path)


FORMATS: dict[str, Format] = {"onnx": _Onnx(), "coreml": _CoreML()}


def format_named(name: str) -> Format:
    """The format ``name``, ready to use.

    Raises:
        DmaskError: for an unknown name, and for one whose package is not installed.
    """
    if name not in FORMATS:
        raise DmaskError(f"no export format '{name}'", f"choose from {', '.join(FORMATS)}")
    found = FORMATS[name]
    try:
        with quiet_coremltools() if name == "coreml" else contextlib.nullcontext():
            importlib.import_module(found.package)
    except ImportError as error:
        raise DmaskError(
            f"format {name} needs the package {found.package}: {error}", f"pip install {found.package}"
        ) from error
    return found


def metadata_of(child_json: str, child_digest: str, class_names: tuple[str, ...]) -> dict[str, str]:
    """What every artifact says of itself, in the customary metadata of its format."""
    return {
        "dmask.child_digest": child_digest,
        "dmask.child": child_json,
        "dmask.class_names": json.dumps(class_names),
        "dmask.input": "RGB, NCHW, float32 in 0..1; normalization is in the graph",
    }
