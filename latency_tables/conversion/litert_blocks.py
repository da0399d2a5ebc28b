"""Blocks as LiteRT models, with one conversion for each structure (`structures`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from dmask_mobile.records.block import BlockSpec
from export.deployable import fold_norms
from export.formats.litert.reader import quiet_litert
from export.formats.litert.writer import to_litert
from latency_tables.conversion.inside import block_module
from latency_tables.conversion.structures import (
    NotATemplateError,
    Weight,
    names_by_size,
    out_size_of,
    parameters_of,
    sizes_of,
    structure_of,
    template_module,
    weight_in,
)

KINDS = ("conv", "inverted_residual", "head")
MIN_SIZE = 2  # pixels of input and output: maps of one pixel are converted in another way
OFFSETS = (0.0, 3.0)  # hard sigmoid adds 3, which the converter adds to the bias before it
MAX_SCALAR = 1  # values of a constant that is no weight


class Template(NamedTuple):
    """A converted block: the flatbuffer's bytes, and the weight in each of its buffers that holds one."""

    content: bytes
    weights: Mapping[int, Weight]
    dims: Mapping[int, str]


def converted_by_structure(block: BlockSpec, in_size: int, module: nn.Module) -> bytes | None:
    """The LiteRT model of ``module`` in float32, in milliseconds: that of `to_litert`. None without a template.

    Args:
        block: what the module is.
        in_size: height and width of its input.
        module: the block, in evaluation mode.
    """
    if block.kind not in KINDS or block.padding == "same" or min(in_size, out_size_of(block, in_size)) < MIN_SIZE:
        return None
    template = _template(*structure_of(block, in_size))
    return None if template is None else _filled(template, block, in_size, module)


@functools.cache
def _template(block: BlockSpec, in_size: int) -> Template | None:
    """The template of a structure; None where it is none."""
    module, shape = block_module(template_module(block), block, in_size)
    content, dims = to_litert(module, shape), names_by_size(block, in_size)
    try:
        return Template(content, _weights(content, module, set(dims)), dims)
    except NotATemplateError:
        return None


def _weights(content: bytes, module: nn.Module, dims: set[int]) -> dict[int, Weight]:
    """The weight in each buffer.

    Raises:
        NotATemplateError: when a constant is neither a weight, nor a number, nor made of other numbers than sizes.
    """
    from ai_edge_litert.schema_py_generated import TensorType
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    (graph,) = model.subgraphs
    parameters = parameters_of(fold_norms(module))
    found = {}
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data):
            continue
        if tensor.type != TensorType.FLOAT32:
            if dims & set(np.frombuffer(bytes(data), np.int32).tolist()):
                raise NotATemplateError(tensor.name)
            continue
        values = np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
        if values.size > MAX_SCALAR:
            found[tensor.buffer] = weight_in(values, parameters, OFFSETS)
    for operation in graph.operators:
        options = vars(operation.builtinOptions) if operation.builtinOptions else {}
        if dims & {value for value in options.values() if isinstance(value, int)}:
            raise NotATemplateError("an operator's option")
    return found


def _filled(template: Template, block: BlockSpec, in_size: int, module: nn.Module) -> bytes:
    """The template with the sizes of ``block`` and the weights of ``module``."""
    from ai_edge_litert.tools import flatbuffer_utils

    sizes, parameters = sizes_of(block, in_size), parameters_of(fold_norms(module))
    with quiet_litert():
        model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(template.content))
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = [sizes[template.dims[size]] if size in template.dims else size for size in tensor.shape]
            weight = template.weights.get(tensor.buffer)
            if weight is not None:
                values = np.zeros(tensor.shape, np.float32)
                if weight.name:
                    values = weight.values(parameters)
                    tensor.shape = list(values.shape)  # the kernel may be as long as a size
                model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
