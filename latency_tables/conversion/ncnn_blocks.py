"""Blocks as ncnn models, with one conversion for each structure (`structures`).

ncnn infers shapes while it runs. Its param file states only the shape of the input and the sizes of weights, and its
bin file is these weights one after the other.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from dmask_mobile.records.block import BlockSpec
from dmask_mobile.temporary import temporary_folder
from export.deployable import fold_norms
from export.formats.ncnn.graph import BIAS_FLAGS, FP16_TAG, FP32_TAG, WEIGHT_COUNTS, Layer, read_layers, text_of
from export.formats.ncnn.writer import to_ncnn
from latency_tables.conversion.structures import (
    Arrays,
    NotATemplateError,
    names_by_size,
    parameters_of,
    structure_of,
    template_module,
)
from latency_tables.runtimes.zipped import zipped

OUTPUTS, GROUPS = 0, 7  # the numbers of parameters of a weighted layer: outputs, groups
TOLERANCES = {FP32_TAG: 1e-4, FP16_TAG: 2e-3}  # pnnx folds norms in another order than PyTorch


class Weights(NamedTuple):
    """The names of a layer's parameters in the module, and how its weight is stored; ``bias`` may be empty."""

    weight: str
    bias: str
    tag: int


class Template(NamedTuple):
    """A converted block: its layers, and the weights of those that have any."""

    layers: tuple[Layer, ...]
    weights: tuple[Weights | None, ...]


def converted_by_structure(block: BlockSpec, in_size: int, module: nn.Module, *, fp16: bool = False) -> bytes | None:
    """The zipped ncnn model of ``module``: what `to_ncnn` makes of it, in milliseconds. None without a template.

    Args:
        block: what the module is.
        in_size: height and width of its input.
        module: the block, in evaluation mode.
        fp16: whether weights are stored in float16.
    """
    template = _template(*structure_of(block, in_size), fp16)
    if template is None:
        return None
    parameters = parameters_of(fold_norms(module))
    pairs = list(zip(template.layers, template.weights, strict=True))
    layers = [_sized(layer, weights, (in_size, in_size, block.in_width), parameters) for layer, weights in pairs]
    content = b"".join(_stored(weights, parameters) for _, weights in pairs if weights)
    return zipped({"model.param": text_of(layers).encode(), "model.bin": content})


@functools.cache
def _template(block: BlockSpec, in_size: int, fp16: bool) -> Template | None:
    """The template of a structure; None where it is none."""
    module = template_module(block)
    with temporary_folder() as folder:
        to_ncnn(module, (1, block.in_width, in_size, in_size), folder, fp16=fp16)
        text, content = (folder / "model.param").read_text(encoding="utf-8"), (folder / "model.bin").read_bytes()
    try:
        layers = read_layers(text)
        _check_sizes(layers, names_by_size(block, in_size))
        return Template(layers, tuple(_weights(layers, content, parameters_of(fold_norms(module)))))
    except (NotATemplateError, ValueError):  # ValueError: a layer that is not known here
        return None


def _check_sizes(layers: tuple[Layer, ...], dims: Mapping[int, str]) -> None:
    """Raises `NotATemplateError` when a parameter is a size that follows neither from the input nor from weights."""
    sizes = set(map(str, dims))
    for layer in layers:
        if layer.kind not in ("Input", *WEIGHT_COUNTS) and sizes & set(layer.params.values()):
            raise NotATemplateError(f"{layer.kind} '{layer.name}'")


def _weights(layers: tuple[Layer, ...], content: bytes, parameters: Arrays) -> Iterator[Weights | None]:
    """The weights of each layer, read from the bin file.

    Raises:
        NotATemplateError: when they are no parameters of the module.
    """
    stream = io.BytesIO(content)
    for layer in layers:
        if not layer.num_weights:
            yield None
            continue
        tag = int.from_bytes(stream.read(4), "little")
        stored = np.frombuffer(stream.read(_padded(layer.num_weights * _dtype(tag).itemsize)), _dtype(tag))
        weight = _named(stored[: layer.num_weights], tag, parameters)
        num_biases = layer.param(OUTPUTS) * layer.param(BIAS_FLAGS[layer.kind])
        biases = np.frombuffer(stream.read(4 * num_biases), np.float32)
        yield Weights(weight, _named(biases, FP32_TAG, parameters) if num_biases else "", tag)
    if stream.read(1):
        raise NotATemplateError("the rest of model.bin")


def _named(values: np.ndarray, tag: int, parameters: Arrays) -> str:
    """The name of the parameter that has these values."""
    for name, parameter in parameters.items():
        if parameter.size == values.size and np.allclose(parameter.ravel(), values, rtol=TOLERANCES[tag], atol=1e-6):
            return name
    raise NotATemplateError(f"a weight with {values.size} values")


def _sized(layer: Layer, weights: Weights | None, input_whc: tuple[int, int, int], parameters: Arrays) -> Layer:
    """The layer with the sizes of the input or of its weights."""
    sizes: dict[int, int] = {}
    if layer.kind == "Input":
        sizes = dict(enumerate(input_whc))
    elif weights:
        weight = parameters[weights.weight]
        sizes = {OUTPUTS: len(weight), WEIGHT_COUNTS[layer.kind]: weight.size, GROUPS: len(weight)}
    changed = {number: str(size) for number, size in sizes.items() if number in layer.params}
    return layer._replace(params={**layer.params, **changed})


def _stored(weights: Weights, parameters: Arrays) -> bytes:
    """A layer's part of the bin file."""
    values = np.ascontiguousarray(parameters[weights.weight], _dtype(weights.tag))
    if weights.tag == FP16_TAG:  # pnnx stores 0 for what is smaller
        values[np.abs(values) < np.finfo(np.float16).smallest_normal] *= 0
    weight = values.tobytes()
    bias = parameters[weights.bias].tobytes() if weights.bias else b""
    return weights.tag.to_bytes(4, "little") + weight.ljust(_padded(len(weight)), b"\0") + bias


def _dtype(tag: int) -> np.dtype[Any]:
    return np.dtype(np.float16 if tag == FP16_TAG else np.float32)


def _padded(num_bytes: int) -> int:
    """The length of a weight in the bin file, a multiple of four bytes."""
    return (num_bytes + 3) // 4 * 4
