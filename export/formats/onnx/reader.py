"""An ONNX file opened for verification: it runs in ONNX Runtime and is counted from its graph."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.files import read_bytes
from export.formats.limits import MAX_MODEL_BYTES, check_tensor_sizes
from export.formats.protocols import Counts, EndNames

COUNTED = ("Conv", "Gemm", "MatMul")
PASSED_ON = ("Identity", "Cast", "DequantizeLinear")  # operations allowed between a stored weight and its use


class OnnxModel:
    """`ExportedModel` for ONNX.

    Raises:
        DmaskError: if the file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = read_bytes(path, MAX_MODEL_BYTES)
            self._model = onnx.load_from_string(content)
            self._unused_bytes = len(content) - _known_bytes(self._model)
            _check_no_external_data(self._model.graph)
            self._shaped = onnx.shape_inference.infer_shapes(self._model, strict_mode=True, data_prop=True)
            check_tensor_sizes(_shapes(self._shaped.graph).values())
            self._session = _session(self._model)
        except Exception as error:  # both libraries have their own C++ errors
            raise DmaskError(f"'{path}' cannot be loaded as an ONNX model: {error}", "export it again") from error
        self._path = path

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Each output by name, one image after the other; see `ExportedModel`."""
        names = [output.name for output in self._session.get_outputs()]
        if not names:
            return {}
        (given,) = self._session.get_inputs()
        rows = [self._session.run(None, {given.name: image[None].numpy()}) for image in images]
        return {
            name: torch.cat([torch.from_numpy(part) for part in parts])
            for name, parts in zip(names, zip(*rows, strict=True), strict=True)
        }

    def names(self) -> EndNames:
        """The graph's inputs, without stored tensors, and its outputs."""
        graph = self._model.graph
        stored = {tensor.name for tensor in graph.initializer}
        return EndNames(
            tuple(value.name for value in graph.input if value.name not in stored),
            tuple(value.name for value in graph.output),
        )

    def unused_bytes(self) -> int:
        """The bytes that belong to no field of an ONNX model, or to a repeated field."""
        return self._unused_bytes

    def counts(self) -> Counts:
        """Multiply-adds and weights, from shapes that onnx infers.

        Raises:
            DmaskError: for a matrix product whose weight is not in the file.
        """
        graph = self._shaped.graph
        weights = _stored_shapes(graph)
        shapes = _shapes(graph)
        macs = params = 0
        for node in graph.node:
            if node.op_type not in COUNTED:
                continue
            if node.input[1] not in weights:
                raise DmaskError(
                    f"'{self._path}': the weight of {node.op_type} '{node.name}' is computed, not stored",
                    "export the model again",
                )
            size = prod(weights[node.input[1]])
            pixels = prod(shapes[node.output[0]][2:]) if node.op_type == "Conv" else 1
            params += size
            macs += size * pixels
        return Counts(macs, params)

    def stray_operations(self) -> dict[str, int]:
        """Transposes, except that of an NHWC input; casts, except of the input, the output and stored weights."""
        graph = self._model.graph
        stored = _stored_shapes(graph)
        ends = {graph.input[0].name, *(output.name for output in graph.output)}
        found = {"Transpose": 0, "Cast": 0}
        for node in graph.node:
            if node.op_type in found and not ends & {*node.input, *node.output} and node.input[0] not in stored:
                found[node.op_type] += 1
        return found

    def metadata(self) -> dict[str, str]:
        """The file's ``metadata_props``."""
        return {prop.key: prop.value for prop in self._model.metadata_props}

    def intermediates(self, image: Tensor) -> Iterator[Tensor]:
        """Every tensor inside the graph, for one image (1, ...), in the order of execution."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        inferred = {value.name: value for value in (*self._shaped.graph.value_info, *self._shaped.graph.output)}
        names = [name for node in model.graph.node for name in node.output if name in inferred]
        del model.graph.output[:]
        model.graph.output.extend(inferred[name] for name in names)
        session = _session(model)
        for value in session.run(None, {session.get_inputs()[0].name: image.numpy()}):
            yield torch.from_numpy(value)


def _known_bytes(model: onnx.ModelProto) -> int:
    """The size of the model without fields that the format does not know."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    known.DiscardUnknownFields()
    return int(known.ByteSize())


def _check_no_external_data(graph: onnx.GraphProto) -> None:
    """Checks that all tensors are in the file itself, because a path in it could name any file.

    Raises:
        ValueError: for a tensor in another file.
    """
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for part in (attribute.g, *attribute.graphs):
                _check_no_external_data(part)
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError(f"the values of its tensor '{shown(tensor.name)}' are in another file")


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs, results and outputs; 0 for an open axis."""
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _session(model: onnx.ModelProto):  # type: ignore[no-untyped-def]  # onnxruntime has no annotations
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # int8 without VNNI: see docs/exporting.md
    options.intra_op_num_threads = 1  # idle thread pools of other open models would slow down the one that runs
    # The fallback to another provider prints to standard output, and there is no other provider.
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=False
    )


def _stored_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of stored tensors, also by the names of their copies and conversions."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in PASSED_ON and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes
