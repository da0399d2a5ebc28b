"""Blocks as LiteRT models, with one conversion for each structure: the others are that model with other sizes.

The official converter takes a second for a block, whatever its size: tracing and decomposing. Blocks with the same
kernel, stride, activation and so on differ in shapes and weights alone. So one block of each structure is converted,
with sizes that all differ. Where such a size appears in a shape, that of the wanted block takes its place. Where a
weight of the module appears, that of the wanted block takes its place, in the same layout. A model in which something
else depends on sizes is no template: then each block with that structure is converted by itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.block import BlockSpec
from export.deployable import fold_norms
from export.formats.litert.reader import quiet_litert
from export.formats.litert.writer import to_litert
from latency_tables.conversion.inside import block_module

KINDS = ("conv", "inverted_residual", "head")
WIDTHS = {"in_width": 29, "hidden_width": 37, "out_width": 31, "se_width": 41}  # of templates: all sizes differ
SIZES = {0: 18, 1: 19}  # pixels, by whether the wanted size is odd
MIN_SIZE = 2  # pixels of input and output: maps of one pixel are converted in another way
LAYOUTS = {4: ((0, 2, 3, 1), (1, 2, 3, 0)), 2: ((0, 1),), 1: ((0,),)}  # of dense and depthwise weights, by dimensions
OFFSETS = (0.0, 3.0)  # hard sigmoid adds 3, which the converter adds to the bias before it
MAX_SCALAR = 1  # values of a constant that is no weight


class NotATemplateError(Exception):
    """A model in which something depends on sizes in a way that is not known here."""


class Weight(NamedTuple):
    """Where a constant comes from: a parameter of the module, or zeros if ``name`` is empty."""

    name: str
    layout: tuple[int, ...] = ()
    offset: float = 0.0


class Template(NamedTuple):
    """A converted block: the flatbuffer's bytes, and the weight in each of its buffers that holds one."""

    content: bytes
    weights: Mapping[int, Weight]
    dims: Mapping[int, str]


def converted_by_structure(block: BlockSpec, in_size: int, module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The LiteRT model of ``module``, in float32: what `to_litert` makes of it, in milliseconds.

    Args:
        block: what the module is.
        in_size: height and width of its input.
        module: the block, in evaluation mode.
        shape: of its input.
    """
    template = None
    if block.kind in KINDS and block.padding == "symmetric" and min(in_size, _out_size(block, in_size)) >= MIN_SIZE:
        template = _template(*structure_of(block, in_size))
    return to_litert(module, shape) if template is None else _filled(template, block, in_size, module)


def structure_of(block: BlockSpec, in_size: int) -> tuple[BlockSpec, int]:
    """The block with this structure that is converted, and its input's size: the same for all blocks with it."""
    widths = {name: size for name, size in WIDTHS.items() if getattr(block, name)}
    if block.residual:
        widths["out_width"] = widths["in_width"]
    if not block.expand:
        widths["hidden_width"] = widths["in_width"]
    return block.model_copy(update=widths), SIZES[in_size % 2]


def _out_size(block: BlockSpec, in_size: int) -> int:
    return in_size if block.kind == "head" else block.out_size(in_size)


def _sizes(block: BlockSpec, in_size: int) -> dict[str, int]:
    """Every size that may appear in a shape, by name: widths, input, output, input with its borders."""
    sizes = {name: getattr(block, name) for name in WIDTHS}
    borders = {f"padded_{kernel}": in_size + 2 * (kernel // 2) for kernel in (block.kernel, block.start_kernel)}
    return {**sizes, "in_size": in_size, "out_size": _out_size(block, in_size), **borders}


@functools.cache
def _template(block: BlockSpec, in_size: int) -> Template | None:
    """The template of a structure; None where it is none."""
    module, shape = block_module(build_block(block).eval(), block, in_size)
    content = to_litert(module, shape)
    dims = {size: name for name, size in reversed(_sizes(block, in_size).items()) if size}
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
    known = list(_known_weights(module))
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
            found[tensor.buffer] = _weight_in(values, known)
    for operation in graph.operators:
        options = vars(operation.builtinOptions) if operation.builtinOptions else {}
        if dims & {value for value in options.values() if isinstance(value, int)}:
            raise NotATemplateError("an operator's option")
    return found


def _weight_in(values: np.ndarray, known: list[tuple[Weight, np.ndarray]]) -> Weight:
    if not values.any():
        return Weight("")
    for weight, candidate in known:
        if candidate.shape == values.shape and np.allclose(candidate, values, rtol=1e-5, atol=1e-7):
            return weight
    raise NotATemplateError(values.shape)


def _known_weights(module: nn.Module) -> Iterator[tuple[Weight, np.ndarray]]:
    """Every parameter in every layout and with every offset that the converter may give it."""
    for name, parameter in fold_norms(module).named_parameters():
        values = parameter.detach().numpy()
        for layout, offset in itertools.product(LAYOUTS[values.ndim], OFFSETS):
            yield Weight(name, layout, offset), values.transpose(layout) + np.float32(offset)


def _filled(template: Template, block: BlockSpec, in_size: int, module: nn.Module) -> bytes:
    """The template with the sizes of ``block`` and the weights of ``module``."""
    from ai_edge_litert.tools import flatbuffer_utils

    sizes = _sizes(block, in_size)
    parameters = {name: value.detach().numpy() for name, value in fold_norms(module).named_parameters()}
    with quiet_litert():
        model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(template.content))
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = [sizes[template.dims[size]] if size in template.dims else size for size in tensor.shape]
            weight = template.weights.get(tensor.buffer)
            if weight is not None:
                values = np.zeros(tensor.shape, np.float32)
                if weight.name:
                    values = parameters[weight.name].transpose(weight.layout) + np.float32(weight.offset)
                    tensor.shape = list(values.shape)  # the kernel may be as long as a size
                model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
