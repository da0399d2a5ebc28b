r"""Reads tables of mobile-vision: JSON lines, each with one operator and its latency in microseconds.

There are two kinds of lines. The published table of FBNet has operators of Caffe2: arguments are protocol buffers as
text (``name: "kernel"\ni: 3\n``), and ``input_shapes`` has the shapes of input, weights and bias, in NHWC if the
argument ``order`` says so. The other kind has PyTorch's ``conv2d`` with named arguments and the shape of the input in
NCHW. Missing arguments have the defaults of Caffe2 and PyTorch.

Only dense convolutions with a known activation correspond to one of our blocks. ``Int8ConvRelu`` and ``ConvRelu``
contain their activation; for ``conv2d`` and ``Conv`` the user must give it; ``Int8Conv`` has none.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dmask_mobile.errors import shown
from dmask_mobile.files import parse_json
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.block import Activation, BlockSpec
from latency_tables.table.foreign_entries import BadEntryError, Entries, Entry, foreign_text

_NAME = re.compile(r'name: "(\w+)"')
_VALUE = re.compile(r'^(i|ints|s): "?([^"\n]*)"?$', re.MULTILINE)


class _Operator(NamedTuple):
    """The facts that follow from an operator's type."""

    precision: Precision
    activation: Activation | None = None
    is_linear: bool = False


CAFFE2 = {
    "Int8ConvRelu": _Operator("int8", "relu"),
    "Int8Conv": _Operator("int8", is_linear=True),
    "ConvRelu": _Operator("fp32", "relu"),
    "Conv": _Operator("fp32"),
}
PYTORCH = "conv2d"
PRECISIONS: dict[Any, Precision] = {
    **dict.fromkeys((None, "float", "float32", "fp32"), "fp32"),
    **dict.fromkeys(("half", "float16", "fp16"), "fp16"),
    **dict.fromkeys(("int8", "qint8", "quint8", "uint8"), "int8"),
}


class _Convolution(NamedTuple):
    """The geometry of a convolution, independent of the kind of line."""

    channels: int
    size: int
    out_width: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    groups: int


def mobile_vision_entries(path: Path, activation: Activation | None) -> Entries:
    """The entries of a table of mobile-vision.

    Raises:
        ValueError: if the file is not such a table.
    """
    text = foreign_text(path)
    if "-input:" in text[:1000]:
        raise ValueError("its entries are blocks, as in a table of proxylessnas or once-for-all")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                content = parse_json(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON (one object a line is expected): {error}") from error
            yield f"line {number}", partial(_entry, content, activation)


def _entry(content: Any, activation: Activation | None) -> Entry:
    if not isinstance(content, dict):
        raise BadEntryError("it must be an object with the keys of an operator")
    kind, arguments = content["op_type"], content["op_args"]
    if isinstance(kind, str) and kind in CAFFE2 and isinstance(arguments, list):
        operator = CAFFE2[kind]
        found = _caffe2(_caffe2_arguments(arguments), content["input_shapes"])
    elif kind == PYTORCH and isinstance(arguments, dict):
        if content.get("dtype") not in PRECISIONS:
            raise BadEntryError(f"dtype '{shown(content['dtype'])}' is not supported")
        operator = _Operator(PRECISIONS[content.get("dtype")])
        found = _pytorch(arguments, content["input_shapes"])
    else:
        raise BadEntryError(f"operator '{shown(kind)}' corresponds to no block")
    _check(found)
    if operator.is_linear:
        raise BadEntryError("a convolution without an activation corresponds to no block")
    known = operator.activation or activation
    if known is None:
        raise BadEntryError("its activation is not in the file: give it with --activation")
    block = BlockSpec(
        kind="conv",
        in_width=found.channels,
        out_width=found.out_width,
        kernel=found.kernel,
        stride=found.stride,
        activation=known,
    )
    ms = content["runtime_us_p50"]
    return Entry(
        (block, found.size),
        ms / 1000 if isinstance(ms, int | float) and not isinstance(ms, bool) else ms,
        operator.precision,
        content.get("device"),
    )


def _check(found: _Convolution) -> None:
    """Checks that a convolution is dense, padded by half its kernel and not dilated, as our blocks are."""
    if found.groups != 1:
        raise BadEntryError(f"a convolution of {found.groups} groups corresponds to no block")
    if found.padding != found.kernel // 2:
        raise BadEntryError(f"padding {found.padding}: blocks with kernel {found.kernel} have {found.kernel // 2}")
    if found.dilation != 1:
        raise BadEntryError(f"dilation {found.dilation}: blocks have 1")


def _caffe2_arguments(arguments: list[Any]) -> dict[str, list[str]]:
    """The values of each argument, from its text."""
    found: dict[str, list[str]] = {}
    for text in arguments:
        name = _NAME.search(text)
        if name is None:
            raise BadEntryError(f"an argument without a name: '{shown(text)}'")
        if name[1] in found:
            raise BadEntryError(f"argument '{name[1]}' appears twice")
        found[name[1]] = [value for _, value in _VALUE.findall(text)]
    return found


def _caffe2(arguments: dict[str, list[str]], shapes: Any) -> _Convolution:
    order = arguments.get("order", ["NCHW"])
    if order not in (["NHWC"], ["NCHW"]):
        raise BadEntryError(f"order {shown(order)} is neither NHWC nor NCHW")
    if arguments.get("legacy_pad", ["0"]) != ["0"]:
        raise BadEntryError("its padding is not given in pixels (legacy_pad)")
    if len(shapes) < 2:
        raise BadEntryError("the shapes of input and weights are needed")
    last = order == ["NHWC"]
    (batch, *image), (out_width, *weights) = _shape(shapes[0]), _shape(shapes[1])
    height, width, channels = image if last else (*image[1:], image[0])
    kernel_height, kernel_width, channels_per_group = weights if last else (*weights[1:], weights[0])
    _check_input(batch, height, width, shapes[0])
    kernel, groups = _one(arguments, "kernel", kernel_height), _one(arguments, "group", 1)
    if not kernel == kernel_height == kernel_width:
        raise BadEntryError(f"kernel {kernel}, but the weights have {kernel_height}x{kernel_width}")
    if channels_per_group * groups != channels:
        raise BadEntryError(
            f"the input has {channels} channels, but the weights have {channels_per_group} in {groups} groups"
        )
    stride, padding, dilation = (_one(arguments, *how) for how in (("stride", 1), ("pad", 0), ("dilation", 1)))
    return _Convolution(channels, height, out_width, kernel, stride, padding, dilation, groups)


def _one(arguments: dict[str, list[str]], name: str, default: int) -> int:
    """The number in ``kernel``, ``kernels`` or ``kernel_h`` and ``kernel_w``; also for other arguments."""
    endings = ("", "s", "_h", "_w", "_t", "_l", "_b", "_r")
    values = {int(value) for ending in endings for value in arguments.get(name + ending, ())}
    sided = [ending for ending in endings[2:] if name + ending in arguments]
    if sided and not (set(sided) >= {"_h", "_w"} or set(sided) >= {"_t", "_l", "_b", "_r"}):
        values.add(default)  # the default holds for sides that are not given
    if len(values) > 1:
        raise BadEntryError(f"{name} differs by direction: {shown(sorted(values))}")
    return values.pop() if values else default


def _pytorch(arguments: dict[str, Any], shapes: Any) -> _Convolution:
    batch, channels, height, width = _shape(shapes[0])
    _check_input(batch, height, width, shapes[0])
    if channels != arguments["in_channels"]:
        raise BadEntryError(
            f"the input has {channels} channels, but the operator has {shown(arguments['in_channels'])}"
        )
    kernel, stride, padding, dilation = (
        _square(name, arguments[name] if default is None else arguments.get(name, default))
        for name, default in (("kernel_size", None), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    groups = _square("groups", arguments.get("groups", 1))
    return _Convolution(
        channels, height, _square("out_channels", arguments["out_channels"]), kernel, stride, padding, dilation, groups
    )


def _square(name: str, value: Any) -> int:
    """The integer in ``3`` or in ``[3, 3]``."""
    values = value if isinstance(value, list) else [value]
    if len(set(map(repr, values))) != 1 or isinstance(values[0], bool) or not isinstance(values[0], int):
        raise BadEntryError(f"{name} must be one integer, got {shown(repr(value))}")
    return values[0]


def _shape(shape: Any) -> tuple[int, int, int, int]:
    if not isinstance(shape, list) or len(shape) != 4 or any(type(size) is not int for size in shape):
        raise BadEntryError(f"a shape must be four integers, got {shown(repr(shape))}")
    return tuple(shape)


def _check_input(batch: int, height: int, width: int, shape: Any) -> None:
    if batch != 1 or height != width:
        raise BadEntryError(f"the input has the shape {shown(shape)}, but batch 1 and a square map are needed")
