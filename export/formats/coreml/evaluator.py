"""Evaluates the program of a Core ML package on any machine.

Core ML runs only on macOS. This module interprets the program of a package with torch, operation by operation, by the
definitions of MIL's operations (coremltools' documentation). This checks everything in the file: weights, attributes,
connections, number formats. It does not check Apple's kernels.

Float16: every operation takes float16 numbers, computes in float32 and rounds its result to float16. So sums inside a
convolution or a mean are accumulated in float32; Apple's chips may do this differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.errors import DmaskError

VALUES_AT_ONCE = 2**18  # of input images; an intermediate result of an inverted residual has about ten times as many

Values = dict[str, Any]


def _conv(v: Values) -> Tensor:
    pad_type = v.get("pad_type", "valid")
    if pad_type not in ("valid", "custom"):
        raise DmaskError(
            f"the Core ML evaluator supports conv padding 'valid' and 'custom', got '{pad_type}'", "export it again"
        )
    top, bottom, left, right = v["pad"].tolist() if pad_type == "custom" else (0, 0, 0, 0)
    x = F.pad(v["x"], (left, right, top, bottom))
    strides, dilations = v["strides"].tolist(), v["dilations"].tolist()
    return F.conv2d(x, v["weight"], v.get("bias"), strides, 0, dilations, int(v["groups"]))


def _pad(v: Values) -> Tensor:
    if v.get("mode", "constant") != "constant":
        raise DmaskError(f"the Core ML evaluator supports padding by a constant, got '{v['mode']}'", "export it again")
    first_to_last = v["pad"].reshape(-1, 2)
    borders = [int(size) for pair in reversed(first_to_last) for size in pair]
    return F.pad(v["x"], borders, value=float(v.get("constant_val", 0.0)))


def _dequantized(v: Values) -> Tensor:
    along_axis = [1] * v["quantized_data"].dim()
    along_axis[int(v["axis"])] = -1
    zero_point, scale = (v[name].float().reshape(along_axis) for name in ("zero_point", "scale"))
    weight: Tensor = (v["quantized_data"].float() - zero_point) * scale
    return weight


OPERATIONS: dict[str, Callable[[Values], Tensor]] = {
    "add": lambda v: v["x"] + v["y"],
    "clip": lambda v: v["x"].clamp(float(v["alpha"]), float(v["beta"])),
    "cast": lambda v: v["x"],  # like all results, it is rounded to its declared type
    "constexpr_affine_dequantize": _dequantized,
    "conv": _conv,
    "linear": lambda v: F.linear(v["x"], v["weight"], v.get("bias")),
    "mul": lambda v: v["x"] * v["y"],
    "pad": _pad,
    "reduce_mean": lambda v: v["x"].mean(v["axes"].tolist(), keepdim=bool(v["keep_dims"])),
    "relu": lambda v: F.relu(v["x"]),
    "relu6": lambda v: F.relu6(v["x"]),
    "reshape": lambda v: v["x"].reshape(v["shape"].tolist()),
    "sigmoid": lambda v: torch.sigmoid(v["x"]),
    "silu": lambda v: F.silu(v["x"]),
    "sigmoid_hard": lambda v: (v["alpha"] * v["x"] + v["beta"]).clamp(0, 1),
    "softmax": lambda v: v["x"].softmax(int(v["axis"])),
    "thresholded_relu": lambda v: torch.where(v["x"] >= v["alpha"], v["x"], 0.0),
}


class CoreMLProgram:
    """A function of a Core ML program with one input of images, ready to be evaluated.

    Args:
        function: the function as read from a package by coremltools.

    Raises:
        ValueError: for several inputs, or a batch that is neither 1 nor open.
    """

    def __init__(self, function: Any) -> None:
        if len(function.inputs) != 1:
            raise ValueError(f"a program must have one input, found {len(function.inputs)}")
        self.function = function
        self.input = next(iter(function.inputs.values()))
        self.open_batch = not isinstance(self.input.shape[0], int | np.integer)
        if not self.open_batch and self.input.shape[0] != 1:
            raise ValueError(f"the batch must be 1 or open, found {self.input.shape[0]}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Each output by name for images (M, ...).

        A program with batch 1 is evaluated for one image, with all shapes as in the program; `torch.func.vmap`
        evaluates many images at once.

        Raises:
            DmaskError: for images of another shape, or an operation or number format that is not supported here.
        """
        if tuple(images.shape[1:]) != tuple(self.input.shape[1:]):
            raise DmaskError(
                f"the Core ML program takes images {tuple(self.input.shape[1:])}, got {tuple(images.shape[1:])}",
                "give images of its layout and resolution",
            )
        at_once = max(1, VALUES_AT_ONCE // prod(self.input.shape[1:]))
        if self.open_batch:
            parts = [self._outputs(part) for part in torch.split(images, at_once)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        outputs = torch.func.vmap(self._outputs, chunk_size=at_once)(images[:, None])
        return {name: value.flatten(0, 1) for name, value in outputs.items()}

    @torch.no_grad()
    def intermediates(self, image: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Every operation that depends on the image, in the order of execution, and its result."""
        values = {**self._constants, id(self.input): image}
        for operation in self.function.operations:
            result = operation.outputs[0]
            if id(result) not in values:
                values[id(result)] = _evaluate(operation, values)
                yield operation, values[id(result)]

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        values = {id(operation.outputs[0]): value for operation, value in self.intermediates(images)}
        return {var.name: values[id(var)] for var in self.function.outputs}

    @cached_property
    def _constants(self) -> dict[int, Any]:
        """The constants by identity: coremltools adds constants while reading, and their names may not be unique."""
        values: dict[int, Any] = {}
        for operation in self.function.operations:
            if operation.op_type == "const":
                values[id(operation.outputs[0])] = _constant(operation.outputs[0].val)
            elif operation.op_type.startswith("constexpr_"):
                values[id(operation.outputs[0])] = _evaluate(operation, values)
        return values


def _evaluate(operation: Any, values: dict[int, Any]) -> Tensor:
    """The result of one operation in float32, rounded to values of the declared type."""
    if operation.op_type not in OPERATIONS:
        raise DmaskError(
            f"Core ML operation '{operation.op_type}' is not supported by the evaluator, which supports"
            f" {', '.join(sorted(OPERATIONS))}",
            "verify this package on a Mac, or add the operation to export/formats/coreml/evaluator.py",
        )
    inputs = {name: values[id(var)] for name, var in operation.inputs.items() if var is not None}
    result, declared = OPERATIONS[operation.op_type](inputs), operation.outputs[0]
    if is_half(declared):
        return result.half().float()
    if not declared.is_tensor_or_scalar_of("fp32"):
        raise DmaskError(
            f"the Core ML evaluator supports fp32 and fp16 results; {operation.op_type} '{declared.name}' has another",
            "export it again",
        )
    return result


def is_half(var: Any) -> bool:
    """Whether a value of the program is float16."""
    return bool(var.is_tensor_or_scalar_of("fp16"))


def _constant(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and np.issubdtype(value.dtype, np.number):
        number = torch.from_numpy(np.array(value))
        return number.float() if number.is_floating_point() else number
    return value
