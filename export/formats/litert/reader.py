"""A LiteRT file opened for verification: it runs in LiteRT's interpreter and is counted from its flatbuffer."""

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
UNCOUNTED = (
    "BATCH_MATMUL",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "CUSTOM",
    "TRANSPOSE_CONV",
)  # these multiply, but by other rules
CASTS = ("CAST", "QUANTIZE", "DEQUANTIZE")


@contextlib.contextmanager
def quiet_litert() -> Iterator[None]:
    """A context without progress, logs and warnings of LiteRT; its C++ code writes some to the process's stderr."""
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
        DmaskError: if the file cannot be loaded.
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
        except Exception as error:  # flatbuffers, numpy, zipfile and the interpreter each have their own exceptions
            raise DmaskError(f"'{path}' cannot be loaded as a LiteRT model: {error}", "export it again") from error

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
        """The names of input and output in the graph, and those in the signature if they differ."""
        (signature,) = self._model.signatureDefs
        graph, parts = self._graph, []
        for places, named in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
            names = [graph.tensors[place].name for place in places] + [entry.name for entry in named]
            parts.append(tuple(dict.fromkeys(name.decode(errors="replace") for name in names)))
        return EndNames(*parts)

    def unused_bytes(self) -> int:
        """The number of bytes that differ from the model and its archive of labels when they are packed again."""
        with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
            labels = archive.read(LABELS_FILE)
        return abs(len(self._content) - len(packed(self._model, labels)))

    def counts(self) -> Counts:
        """Multiply-adds and weights from the shapes of the file's tensors.

        Raises:
            DmaskError: for a product whose weight is not in the file, or a product that is not in `COUNTED`.
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
        """Transposes, except one of an NCHW input (LiteRT computes in NHWC); casts, except of the ends and weights."""
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
        """Our strings, the strings of TensorFlow Lite's metadata as ``tflite.NAME``, and ``labels.txt``."""
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
        with quiet_litert():  # it reports on stderr that it uses XNNPACK
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_content=self._content, num_threads=1, **options)
            interpreter.allocate_tensors()
            interpreter.invoke()  # some faults appear only here
        return interpreter

    def _operations(self) -> Iterator[tuple[str, Any]]:
        """The operations and their names, in the order of execution."""
        from ai_edge_litert.tools import flatbuffer_utils

        for operation in self._graph.operators:
            yield flatbuffer_utils.opcode_to_name(self._model, operation.opcodeIndex), operation

    def _shape(self, index: int) -> list[int]:
        shape: list[int] = self._graph.tensors[index].shape
        return shape

    def _stored(self) -> set[int]:
        """The tensors whose values are in the file, including float32 tensors that are converted from stored
        float16."""
        stored = {index for index, tensor in enumerate(self._graph.tensors) if tensor.buffer}
        return stored | {
            operation.outputs[0]
            for name, operation in self._operations()
            if name == "DEQUANTIZE" and operation.inputs[0] in stored
        }

    def _input_channels(self) -> int:
        """The number of input channels of the first convolution."""
        weights = [self._shape(op.inputs[1]) for name, op in self._operations() if name == "CONV_2D"]
        return weights[0][-1] if weights else self._shape(self._graph.inputs[0])[-1]


def _read(content: bytes) -> Any:
    """The flatbuffer as a `ModelT`, after a check that every vector is inside the file.

    Raises:
        Exception: if one is not. The interpreter would read beyond the end of the file instead.
    """
    if content[4:8] != b"TFL3":
        raise ValueError("it lacks the identifier TFL3")
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(content)


def _invoke(interpreter: Any, image: Tensor) -> None:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.numpy())
    interpreter.invoke()
