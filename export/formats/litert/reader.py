"""A LiteRT file opened for verification: run by LiteRT's interpreter, counted on its own flatbuffer."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import read_bytes
from export.formats.limits import MAX_MODEL_BYTES, check_tensor_sizes
from export.formats.litert.metadata import LABELS_FILE, packed, read_metadata
from export.formats.protocols import Counts, EndNames

COUNTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
UNCOUNTED = ("BATCH_MATMUL", "CONV_3D", "CONV_3D_TRANSPOSE", "CUSTOM", "TRANSPOSE_CONV")  # multiply, by other rules
CASTS = ("CAST", "QUANTIZE", "DEQUANTIZE")


@contextlib.contextmanager
def quiet_litert() -> Iterator[None]:
    """LiteRT's packages without their progress, log lines and warnings; C++ writes some to the process's stderr."""
    disabled, stderr = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logging.disable(disabled)


class LiteRTModel:
    """`ExportedModel` for LiteRT.

    Raises:
        DmaskError: when the file does not load.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._content = read_bytes(path, MAX_MODEL_BYTES)
            self._model = _read(self._content)
            (self._graph,) = self._model.subgraphs
            check_tensor_sizes(tensor.shape for tensor in self._graph.tensors if tensor.shape is not None)
            self._metadata = read_metadata(self._content, self._model)
            self._interpreter = self._new_interpreter()
        except Exception as error:  # flatbuffers, numpy, zipfile and the interpreter raise each their own
            raise DmaskError(f"'{path}' does not load as a LiteRT model: {error}", "export it again") from error

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Each output by name, one image after the other, on one thread with XNNPACK; see `ExportedModel`."""
        outputs = self._interpreter.get_output_details()
        rows = []
        for image in images:
            _invoke(self._interpreter, image[None])
            rows.append([torch.from_numpy(self._interpreter.get_tensor(output["index"])) for output in outputs])
        return {
            output["name"]: torch.cat(parts) for output, parts in zip(outputs, zip(*rows, strict=True), strict=True)
        }

    def names(self) -> EndNames:
        """The names of the two ends, in the graph and, where they differ, in the signature too."""
        (signature,) = self._model.signatureDefs
        graph, parts = self._graph, []
        for places, named in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
            names = [graph.tensors[place].name for place in places] + [entry.name for entry in named]
            parts.append(tuple(dict.fromkeys(name.decode(errors="replace") for name in names)))
        return EndNames(*parts)

    def unused_bytes(self) -> int:
        """Bytes in which the file differs from the model packed again, and the archive of labels after it."""
        with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
            labels = archive.read(LABELS_FILE)
        return abs(len(self._content) - len(packed(self._model, labels)))

    def counts(self) -> Counts:
        """Multiply-adds and weights from the shapes of the file's tensors.

        Raises:
            DmaskError: for a product whose weight is not in the file, and one that is none of `COUNTED`.
        """
        stored = self._stored()
        macs = params = 0
        for name, operation in self._operations():
            if name in UNCOUNTED or (name in COUNTED and operation.inputs[1] not in stored):
                raise DmaskError(
                    f"'{self._path}': the multiply-adds of {name} are not known, or its weight is not stored",
                    "export it again",
                )
            if name in COUNTED:
                size = prod(self._shape(operation.inputs[1]))
                params += size
                macs += size * prod(self._shape(operation.outputs[0])[1:-1])  # of (1, K): 1
        return Counts(macs, params)

    def stray_operations(self) -> dict[str, int]:
        """Transposes but one of an NCHW input (LiteRT computes in NHWC); casts but of the ends and stored weights."""
        found = dict.fromkeys(("TRANSPOSE", *CASTS), 0)
        stored, outputs, given = self._stored(), set(self._graph.outputs), self._graph.inputs[0]
        for name, operation in self._operations():
            at_an_end = given in operation.inputs or bool(outputs & {*operation.outputs})
            necessary = name in CASTS and (at_an_end or operation.inputs[0] in stored)
            if name in found and not necessary:
                found[name] += 1
        if self._shape(given)[-1] != self._input_channels() and found["TRANSPOSE"]:
            found["TRANSPOSE"] -= 1
        return found

    def metadata(self) -> dict[str, str]:
        """Our strings, those of TensorFlow Lite's metadata as ``tflite.NAME``, and ``labels.txt``."""
        return dict(self._metadata)

    def intermediates(self, image: Tensor) -> Iterator[Tensor]:
        """Every tensor inside the graph as float32, for one image (1, ...), in the order of execution."""
        interpreter = self._new_interpreter(experimental_preserve_all_tensors=True)
        _invoke(interpreter, image)
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        for _, operation in self._operations():
            for index in operation.outputs:
                value = torch.from_numpy(interpreter.get_tensor(index)).float()
                scale, zero = details[index]["quantization"]
                yield (value - zero) * scale if scale else value

    def _new_interpreter(self, **options: Any) -> Any:
        with quiet_litert():  # it says on stderr that it uses XNNPACK
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_content=self._content, num_threads=1, **options)
            interpreter.allocate_tensors()
            interpreter.invoke()  # some faults show only here
        return interpreter

    def _operations(self) -> Iterator[tuple[str, Any]]:
        """The operations with their names, in the order of execution."""
        from ai_edge_litert.tools import flatbuffer_utils

        for operation in self._graph.operators:
            yield flatbuffer_utils.opcode_to_name(self._model, operation.opcodeIndex), operation

    def _shape(self, index: int) -> list[int]:
        shape: list[int] = self._graph.tensors[index].shape
        return shape

    def _stored(self) -> set[int]:
        """The tensors whose values are in the file, also as float32 again after having been stored as float16."""
        stored = {index for index, tensor in enumerate(self._graph.tensors) if tensor.buffer}
        return stored | {
            operation.outputs[0]
            for name, operation in self._operations()
            if name == "DEQUANTIZE" and operation.inputs[0] in stored
        }

    def _input_channels(self) -> int:
        """What the first convolution takes."""
        weights = [self._shape(op.inputs[1]) for name, op in self._operations() if name == "CONV_2D"]
        return weights[0][-1] if weights else self._shape(self._graph.inputs[0])[-1]


def _read(content: bytes) -> Any:
    """The flatbuffer as a `ModelT`; every vector in it is inside the file.

    Raises:
        Exception: when one does not. The interpreter would read beyond the file's end instead.
    """
    if content[4:8] != b"TFL3":
        raise ValueError("it lacks the identifier TFL3")
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(content)


def _invoke(interpreter: Any, image: Tensor) -> None:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.numpy())
    interpreter.invoke()
