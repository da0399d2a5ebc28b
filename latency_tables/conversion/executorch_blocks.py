"""Blocks as ExecuTorch programs, with one conversion for each structure (`structures`).

The program of a block is one call of the XNNPACK delegate. The delegate's graph is a flatbuffer, in which a number lies
at the same place whatever its value. To find the places of sizes, the graph of a template is compiled with a different
number at each of them. ExecuTorch's own serializer then writes the program around the graph, and the weights.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from math import prod
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from dmask_mobile.records.block import BlockSpec
from dmask_mobile.temporary import temporary_folder
from export.formats.executorch.graph import graph_at, read_graph
from export.formats.executorch.writer import folded, to_executorch
from latency_tables.conversion.structures import (
    WIDTHS,
    Arrays,
    NotATemplateError,
    Weight,
    names_by_size,
    parameters_of,
    sizes_of,
    structure_of,
    template_module,
    weight_in,
)

WIDTH_FIELDS = ("group_input_channels", "group_output_channels", "groups")  # of convolutions
FIRST_MARKER = 0x5BA50000  # with a number added, no other number of a graph has these bytes
ALIGNMENT, EXTRA_BYTES = 16, 64  # of tensors in the memory plan; at its end

Dims = Mapping[int, str]


class Constant(NamedTuple):
    """A weight of a graph, and the places of its length in bytes and of its key."""

    weight: Weight
    length_at: int
    key_at: int


class Template(NamedTuple):
    """A converted block: the program, the delegate's data, the places of sizes and weights in it.

    ``sizes_at``: the name of the size at each place. ``dims``: the name of each size of the template.
    """

    program: Any
    payload: bytes
    sizes_at: Mapping[int, str]
    constants: tuple[Constant, ...]
    dims: Dims


def converted_by_structure(block: BlockSpec, in_size: int, module: nn.Module) -> bytes | None:
    """The ExecuTorch program of ``module``, in float32: that of `to_executorch`. None without a template.

    Args:
        block: what the module is.
        in_size: height and width of its input.
        module: the block, in evaluation mode.
    """
    template = _template(*structure_of(block, in_size))
    return None if template is None else _filled(template, sizes_of(block, in_size), parameters_of(folded(module)))


@functools.cache
def _template(block: BlockSpec, in_size: int) -> Template | None:
    """The template of a structure; None where it is none."""
    module = template_module(block)
    content = to_executorch(module, (1, block.in_width, in_size, in_size))
    parameters = parameters_of(folded(module))
    try:
        template = _template_of(content, names_by_size(block, in_size), parameters)
    except NotATemplateError:
        return None
    return template if _filled(template, sizes_of(block, in_size), parameters) == content else None


def _template_of(content: bytes, dims: Dims, parameters: Arrays) -> Template:
    """The template that a converted block is.

    Raises:
        NotATemplateError: when it is not one delegate, or something in it depends on sizes in an unknown way.
    """
    from executorch.exir._serialize import _deserialize_pte_binary

    file = _deserialize_pte_binary(content)
    (plan,) = file.program.execution_plan
    if len(plan.delegates) != 1 or plan.operators or len(plan.values) != 2 or file.named_data is None:
        raise NotATemplateError("a program that is not one delegate")
    for value in plan.values:
        _check_dims(value.val.sizes, dims)
    (delegate,) = file.program.backend_delegate_data
    payload, delegate.data = bytes(delegate.data), b""
    graph, start = read_graph(payload), graph_at(payload).start
    data = {key: file.named_data.buffers[entry.buffer_index] for key, entry in file.named_data.pte_data.items()}
    weights = list(_weights(graph, data, parameters))
    names = _mark(graph, dims)
    marked = _compiled(graph)
    places = [start + _place_of(struct.pack("<I", FIRST_MARKER + number), marked) for number in range(len(names))]
    sizes_at = dict(zip(places, filter(None, names), strict=False))
    keys_at = [start + _place_of(_key_marker(number), marked) for number in range(len(weights))]
    constants = tuple(map(Constant, weights, places[len(sizes_at) :], keys_at))
    return Template(file.program, payload, sizes_at, constants, dims)


def _weights(graph: dict[str, Any], data: Mapping[str, bytes], parameters: Arrays) -> Iterator[Weight]:
    """The weight in each of the graph's constants but the first, which is empty."""
    shapes = {tensor["constant_buffer_idx"]: tensor["dims"] for tensor in _tensors(graph)}
    for number, constant in enumerate(graph["constant_data"][1:], start=1):
        values = np.frombuffer(data[constant["named_key"]], np.float32).reshape(shapes[number])
        weight = weight_in(values, parameters)
        if not weight.name:
            raise NotATemplateError("a constant of zeros")
        yield weight


def _mark(graph: dict[str, Any], dims: Dims) -> list[str]:
    """Puts a marker at each place of a size, a length or a key; returns the name of each size, then empty ones."""
    names: list[str] = []
    for holder, key, name in list(_sizes(graph, dims)):
        holder[key] = FIRST_MARKER + len(names)
        names.append(name)
    for number, constant in enumerate(graph["constant_data"][1:]):
        constant.update(size=FIRST_MARKER + len(names), named_key=_key_marker(number).decode())
        names.append("")
    return names


def _sizes(graph: dict[str, Any], dims: Dims) -> Iterator[tuple[Any, Any, str]]:
    """Each place of a size in the graph: what holds it, at which key or index, and the name of the size."""
    widths = {size: name for size, name in dims.items() if name in WIDTHS}
    for tensor in _tensors(graph):
        is_weight = tensor["constant_buffer_idx"] > 0
        if not is_weight:
            _check_dims(tensor["dims"], dims)
        for axis, size in enumerate(tensor["dims"]):
            if size in (widths if is_weight else dims):  # a kernel may be as large as a map
                yield tensor["dims"], axis, dims[size]
    for node in graph["xnodes"]:
        fields = node["xnode_union"]
        for key, value in fields.items():
            if key in WIDTH_FIELDS and value in widths:
                yield fields, key, widths[value]
            elif key == "new_shape":
                _check_dims(value, dims)
                yield from ((value, axis, dims[size]) for axis, size in enumerate(value) if size in dims)
            elif not key.endswith("_id") and isinstance(value, int) and value in dims:
                raise NotATemplateError(f"{key} of {node['xnode_union_type']}")


def _check_dims(shape: list[int], dims: Dims) -> None:
    """Checks that a shape consists of known sizes and ones."""
    if not set(shape) <= {1, *dims}:
        raise NotATemplateError(f"a tensor of shape {shape}")


def _tensors(graph: dict[str, Any]) -> list[dict[str, Any]]:
    """The graph's tensors."""
    values = [value["xvalue_union"] for value in graph["xvalues"]]
    if any(value.get("datatype") != "xnn_datatype_fp32" for value in values):
        raise NotATemplateError("a tensor that is not float32")
    return values


def _key_marker(number: int) -> bytes:
    """A key as long as a SHA-256."""
    return f"{number:x}".rjust(hashlib.sha256().digest_size * 2, "_").encode()


def _place_of(marker: bytes, content: bytes) -> int:
    """The only place of a marker."""
    if content.count(marker) != 1:
        raise NotATemplateError("a number that looks like a marker")
    return content.index(marker)


def _compiled(graph: dict[str, Any]) -> bytes:
    """The flatbuffer of a graph."""
    from executorch.exir._serialize._flatbuffer import _flatc_compile

    schema_file = files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs")
    with as_file(schema_file) as schema, temporary_folder() as folder:
        text = folder / "graph.json"
        text.write_text(json.dumps(graph), encoding="utf-8")
        _flatc_compile(str(folder), str(schema), str(text))
        return (folder / "graph.bin").read_bytes()


def _filled(template: Template, sizes: Mapping[str, int], parameters: Arrays) -> bytes:
    """The template with these sizes and weights."""
    from executorch.exir._serialize import _PTEFile, _serialize_pte_binary
    from executorch.exir._serialize._named_data_store import NamedDataStore

    payload, store = bytearray(template.payload), NamedDataStore()
    for place, name in template.sizes_at.items():
        struct.pack_into("<I", payload, place, sizes[name])
    for constant in template.constants:
        values = constant.weight.values(parameters).tobytes()
        key = hashlib.sha256(values).hexdigest()
        struct.pack_into("<Q", payload, constant.length_at, len(values))
        struct.pack_into(f"{len(key)}s", payload, constant.key_at, key.encode())
        store.add_named_data(key, values, ALIGNMENT)
    program = copy.deepcopy(template.program)
    program.backend_delegate_data[0].data = bytes(payload)
    (plan,) = program.execution_plan
    for value in plan.values:
        value.val.sizes = [sizes[template.dims[size]] if size in template.dims else size for size in value.val.sizes]
    _plan_memory(plan)
    file = _PTEFile(program=program, mutable_data=None, named_data=store.get_named_data_store_output())
    return bytes(_serialize_pte_binary(file, extract_delegate_segments=True))


def _plan_memory(plan: Any) -> None:
    """Places the input and the output one after the other, as ExecuTorch does: the larger one first, or the output."""
    end = 0
    input_, output = plan.values
    for value in sorted((output, input_), key=lambda value: _num_bytes(value.val), reverse=True):
        value.val.allocation_info.memory_offset_low = end
        end += _num_bytes(value.val)
    plan.non_const_buffer_sizes = [0, end + EXTRA_BYTES]


def _num_bytes(tensor: Any) -> int:
    """The length of a float32 tensor in the memory plan."""
    num_bytes: int = 4 * prod(tensor.sizes)
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
