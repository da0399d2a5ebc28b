"""Reads the files of an ncnn model without ncnn: the layers, their shapes and their stored weights.

The formats are described in https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and
https://github.com/Tencent/ncnn/wiki/operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import prod
from typing import NamedTuple

Shape = tuple[int, ...]  # (C, H, W), or (N,) for a vector; ncnn has no batch

MAGIC = "7767517"
FP32_TAG, FP16_TAG = 0, 0x01306B47  # before each weight; states how the weight is stored


class Layer(NamedTuple):
    """One line of a param file; ``params``: parameters by number, whose meaning depends on the layer type."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, str]

    def param(self, number: int, default: int = 0) -> int:
        """A parameter that is an integer."""
        return int(self.params.get(number, default))

    @property
    def num_weights(self) -> int:
        """The number of weights of a convolution or an inner product; 0 for other layers."""
        return self.param(WEIGHT_COUNTS[self.kind]) if self.kind in WEIGHT_COUNTS else 0


def _conv_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    (channels, height, width), p = inputs[0], layer.param
    left, kernel_w, stride_w, dilation_w = p(4), p(1), p(3, 1), p(2, 1)
    top, right, kernel_h = p(14, left), p(15, left), p(11, kernel_w)
    bottom = p(16, top)
    if min(left, right, top, bottom) < 0:
        raise ValueError(f"{layer.kind} '{layer.name}' has padding by a rule, not by numbers")
    _check_weights(layer, p(0) * channels * kernel_h * kernel_w // p(7, 1))
    tall = height + top + bottom - p(12, dilation_w) * (kernel_h - 1) - 1
    wide = width + left + right - dilation_w * (kernel_w - 1) - 1
    return (p(0), tall // p(13, stride_w) + 1, wide // stride_w + 1)


def _linear_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    _check_weights(layer, layer.param(0) * prod(inputs[0]))
    return (layer.param(0),)


def _check_weights(layer: Layer, expected: int) -> None:
    if layer.num_weights != expected:
        raise ValueError(f"{layer.kind} '{layer.name}' must have {expected} weights, found {layer.num_weights}")


def _pool_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    if not layer.param(4):
        raise ValueError(f"Pooling '{layer.name}' is not global")
    return inputs[0][:1]


def _broadcast_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    small, large = sorted(inputs, key=prod)
    if small not in (large, large[:1], (large[0], 1, 1)):
        raise ValueError(f"BinaryOp '{layer.name}' on shapes {inputs[0]} and {inputs[1]}")
    return large


def _permute_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    return tuple(inputs[0][axis] for axis in list(permutations(range(3)))[layer.param(0)])


def _given_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    """The shape of Input and MemoryData, which state w, h and c."""
    return tuple(layer.param(number) for number in (2, 1, 0) if layer.param(number))


def _same_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    return inputs[0]


def _padded_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    (channels, height, width), p = inputs[0], layer.param
    if min(p(number) for number in range(4)) < 0 or p(7) or p(8):
        raise ValueError(f"Padding '{layer.name}' does not add pixels around a map")
    return (channels, height + p(0) + p(1), width + p(2) + p(3))


SHAPES: dict[str, Callable[[Layer, list[Shape]], Shape]] = {
    "BinaryOp": _broadcast_shape,
    "Cast": _same_shape,
    "Clip": _same_shape,
    "Convolution": _conv_shape,
    "ConvolutionDepthWise": _conv_shape,
    "HardSigmoid": _same_shape,
    "HardSwish": _same_shape,
    "InnerProduct": _linear_shape,
    "Input": _given_shape,
    "MemoryData": _given_shape,
    "Packing": _same_shape,
    "Padding": _padded_shape,
    "Permute": _permute_shape,
    "Pooling": _pool_shape,
    "ReLU": _same_shape,
    "Sigmoid": _same_shape,
    "Softmax": _same_shape,
    "Split": _same_shape,
    "Swish": _same_shape,
}
# The numbers of two parameters: how many weights a layer has, and whether it has a bias.
WEIGHT_COUNTS = {"Convolution": 6, "ConvolutionDepthWise": 6, "InnerProduct": 2}
BIAS_FLAGS = {"Convolution": 5, "ConvolutionDepthWise": 5, "InnerProduct": 1}


def read_layers(text: str) -> tuple[Layer, ...]:
    """The layers of a param file.

    Raises:
        ValueError: if it is not a param file, a part of it is missing, or a layer type is not supported here.
    """
    magic, counts, *lines = text.splitlines()
    if magic != MAGIC:
        raise ValueError(f"a param file must begin with {MAGIC}, this one begins with {magic[:20]!r}")
    layers = tuple(_read_layer(line) for line in lines)
    promised = tuple(int(count) for count in counts.split())
    found = len(layers), sum(len(layer.outputs) for layer in layers)
    if promised != found:
        raise ValueError(f"the param file must have (layers, blobs) {promised}, found {found}")
    return layers


def _read_layer(line: str) -> Layer:
    kind, name, num_inputs, num_outputs, *fields = line.split()
    first, last = int(num_inputs), int(num_inputs) + int(num_outputs)
    if kind not in SHAPES:
        raise ValueError(f"its layer type '{kind}' is unknown; known types are {', '.join(SHAPES)}")
    params = dict(field.split("=", 1) for field in fields[last:])
    return Layer(kind, name, tuple(fields[:first]), tuple(fields[first:last]), {int(k): v for k, v in params.items()})


def text_of(layers: Sequence[Layer]) -> str:
    """The param file with these layers; of what `read_layers` returns, the text that it was given."""
    lines = []
    for layer in layers:
        params = (f"{number}={value}" for number, value in layer.params.items())
        counts = str(len(layer.inputs)), str(len(layer.outputs))
        lines.append(" ".join([layer.kind, layer.name, *counts, *layer.inputs, *layer.outputs, *params]))
    num_blobs = sum(len(layer.outputs) for layer in layers)
    return "\n".join([MAGIC, f"{len(layers)} {num_blobs}", *lines]) + "\n"


def infer_shapes(layers: tuple[Layer, ...]) -> dict[str, Shape]:
    """The shape of each blob.

    Raises:
        ValueError: if a layer's parameters do not fit its input.
        KeyError: if an input is not the output of an earlier layer.
    """
    shapes: dict[str, Shape] = {}
    for layer in layers:
        shape = SHAPES[layer.kind](layer, [shapes[name] for name in layer.inputs])
        shapes.update(dict.fromkeys(layer.outputs, shape))
    return shapes


def stored_bytes(layers: tuple[Layer, ...], weights: bytes) -> int:
    """The size in bytes that the bin file must have, from the layers and the storage tags in the file.

    Raises:
        ValueError: for a tag that is neither that of fp32 nor that of fp16.
    """
    offset = 0
    for layer in layers:
        if layer.kind == "MemoryData":
            offset += 4 * prod(_given_shape(layer, []))
        elif layer.num_weights:
            tag = int.from_bytes(weights[offset : offset + 4], "little")
            if tag not in (FP32_TAG, FP16_TAG):
                raise ValueError(f"the weights of '{layer.name}' have an unknown storage tag {tag:#x}")
            size = 4 * layer.num_weights if tag == FP32_TAG else (2 * layer.num_weights + 3) // 4 * 4
            offset += 4 + size + 4 * layer.param(0) * layer.param(BIAS_FLAGS[layer.kind])
    return offset
