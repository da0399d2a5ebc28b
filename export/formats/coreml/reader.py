"""A Core ML package opened for verification: it is evaluated from its file, and counted from its program."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError
from export.formats.coreml.evaluator import OPERATIONS, CoreMLProgram, is_half
from export.formats.coreml.package import Package, read_package
from export.formats.protocols import Counts, EndNames


@contextlib.contextmanager
def quiet_coremltools() -> Iterator[Any]:
    """coremltools without its messages that torch is newer than tested and that this is not a Mac."""
    loggers = [logging.getLogger("coremltools"), logging.getLogger("coremltools.converters")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            warnings.simplefilter("ignore")
            import coremltools

            yield coremltools
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class CoreMLModel:
    """`ExportedModel` for Core ML.

    Raises:
        DmaskError: if the package cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            package = read_package(path)
            spec, function = _read(package)
            self._description = spec.description
            known = type(spec).FromString(package.specification)
            known.DiscardUnknownFields()
            self._unused_bytes = package.unused_bytes + len(package.specification) - known.ByteSize()
            self._program = CoreMLProgram(function)
        except Exception as error:  # coremltools may raise any exception
            raise DmaskError(f"'{path}' cannot be loaded as a Core ML package: {error}", "export it again") from error

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Each output by name, computed by the evaluator, even on a Mac; see `ExportedModel`.

        Raises:
            DmaskError: for an operation that the evaluator does not support.
        """
        return self._program(images)

    def predict(self, images: Tensor) -> dict[str, Tensor] | None:
        """Each output by name, computed by Core ML itself; None on other systems than macOS.

        Float32 runs on the CPU, because only the CPU computes in float32. For a float16 program, Core ML chooses the
        processor.
        """
        if sys.platform != "darwin":
            return None
        with quiet_coremltools() as coremltools:
            half = any(is_half(operation.outputs[0]) for operation in self._program.function.operations)
            units = coremltools.ComputeUnit.ALL if half else coremltools.ComputeUnit.CPU_ONLY
            model = coremltools.models.MLModel(str(self._path), compute_units=units)
            rows = [model.predict({self._program.input.name: image[None].numpy()}) for image in images]
        return {name: torch.cat([torch.from_numpy(row[name]) for row in rows]) for name in rows[0]}

    def names(self) -> EndNames:
        """The inputs and outputs in the description, and those in the program if they differ."""
        description, function = self._description, self._program.function
        ends = (
            ([feature.name for feature in description.input], [self._program.input.name]),
            ([feature.name for feature in description.output], [var.name for var in function.outputs]),
        )
        return EndNames(*(tuple(dict.fromkeys([*described, *found])) for described, found in ends))

    def unused_bytes(self) -> int:
        """Bytes of other files in the package, bytes after the last weights, and bytes of unknown fields."""
        return int(self._unused_bytes)

    def counts(self) -> Counts:
        """Multiply-adds and weights of the program's convolutions and linear layers, from the shapes in the program.

        Raises:
            DmaskError: for an operation whose multiply-adds are not known.
        """
        macs = params = 0
        for operation in self._program.function.operations:
            if operation.op_type not in (*OPERATIONS, "const", "transpose"):
                raise DmaskError(
                    f"'{self._path}': the multiply-adds of Core ML operation '{operation.op_type}' are not known",
                    "export it again",
                )
            if operation.op_type in ("conv", "linear"):
                size = prod(
                    operation.inputs["weight"].shape
                )  # also for int8: the shape of the result of its constexpr operation
                params += size
                macs += size * (prod(operation.outputs[0].shape[2:]) if operation.op_type == "conv" else 1)
        return Counts(macs, params)

    def stray_operations(self) -> dict[str, int]:
        """Transposes, and all casts except those of inputs to float16 and of outputs from float16."""
        found = {"transpose": 0, "cast": 0}
        ends = {id(self._program.input), *map(id, self._program.function.outputs)}
        for operation in self._program.function.operations:
            if operation.op_type not in found:
                continue
            given, result = operation.inputs["x"], operation.outputs[0]
            necessary = ends & {id(given), id(result)} if is_half(given) != is_half(result) else set()
            ends -= necessary
            found[operation.op_type] += not necessary
        return found

    def metadata(self) -> dict[str, str]:
        """The package's user-defined metadata."""
        return dict(self._description.metadata.userDefined)

    def intermediates(self, image: Tensor) -> Iterator[Tensor]:
        """Every tensor inside the program, for one image (1, ...), in the order of execution."""
        return (value for _, value in self._program.intermediates(image))


def _read(package: Package) -> tuple[Any, Any]:
    """The package's specification, and the main function of its program with all weights."""
    with quiet_coremltools() as coremltools:
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = coremltools.proto.Model_pb2.Model.FromString(package.specification)
        weights = str(package.weights)
        program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
    return spec, program.functions["main"]
