"""Borders of ONNX's Pad as constants: PyTorch's exporter computes them in the graph, where shape inference stops."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


def with_constant_borders(content: bytes) -> bytes:
    """The model with the borders of each Pad as a constant; the very same bytes where there is no Pad."""
    model = onnx.load_from_string(content)
    pads = [node for node in model.graph.node if node.op_type == "Pad"]
    if not pads:
        return content
    for number, node in enumerate(pads):
        borders = numpy_helper.from_array(_value_of(model, node.input[1]), f"borders.{number}")
        model.graph.initializer.append(borders)
        node.input[1] = borders.name
    _remove_unused(model.graph)
    return bytes(model.SerializeToString())


def _value_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    """The value of a tensor that depends on no input."""
    needed = {name}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if needed & {*node.output}:
            needed |= {*node.input}
            nodes.insert(0, node)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
    graph = onnx.helper.make_graph(nodes, "borders", [], [output], constants)
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    value: np.ndarray = ReferenceEvaluator(alone).run(None, {})[0]
    return value


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Removes the nodes that nothing depends on any more."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed & {*node.output}:
            needed |= {*node.input}
        else:
            graph.node.remove(node)
