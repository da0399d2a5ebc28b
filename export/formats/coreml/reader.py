"""A Core ML package opened for verification: evaluated from its own file, counted on its own program."""

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
    """coremltools, without its notices that torch is newer than its tests and that this is not a Mac."""
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
        DmaskError: when the package does not load.
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
        except Exception as error:  # coremltools raises whatever its readers raise
            raise DmaskError(f"'{path}' does not load as a Core ML package: {error}", "export it again") from error

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Each output by name, by the evaluator, also on a Mac; see `ExportedModel`.

        Raises:
            DmaskError: for an operation that the evaluator does not know.
        """
        return self._program(images)

    def predict(self, images: Tensor) -> dict[str, Tensor] | None:
        """Each output by name as Core ML itself predicts; None off a Mac, where it does not run.

        On the CPU, which alone computes in float32; a program in float16 runs where Core ML wants it to.
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
        """The description's inputs and outputs, and those of the program where they differ."""
        description, function = self._description, self._program.function
        ends = (
            ([feature.name for feature in description.input], [self._program.input.name]),
            ([feature.name for feature in description.output], [var.name for var in function.outputs]),
        )
        return EndNames(*(tuple(dict.fromkeys([*described, *found])) for described, found in ends))

    def unused_bytes(self) -> int:
        """Of other files in the package, after the last weights, and of fields that a specification does not have."""
        return int(self._unused_bytes)

    def counts(self) -> Counts:
        """Multiply-adds and weights of the program's convolutions and linear layers, by its own shapes.

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
                size = prod(operation.inputs["weight"].shape)  # of int8 too: what its constexpr operation gives
                params += size
                macs += size * (prod(operation.outputs[0].shape[2:]) if operation.op_type == "conv" else 1)
        return Counts(macs, params)

    def stray_operations(self) -> dict[str, int]:
        """Transposes; casts but one of the input to float16 and one of each output from it."""
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
    """The package's specification, and the main function of its program, all weights read."""
    with quiet_coremltools() as coremltools:
        from coremltools.converters.mil.frontend.milproto.load import load

        spec = coremltools.proto.Model_pb2.Model.FromString(package.specification)
        weights = str(package.weights)
        program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
    return spec, program.functions["main"]
