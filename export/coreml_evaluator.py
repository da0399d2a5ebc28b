"""Evaluates a saved Core ML package from its own file, on any machine.

Core ML predicts on macOS only. Off a Mac the package's program is loaded with coremltools' reader and interpreted
with torch, operation by operation, after the definitions of MIL's operations (coremltools' documentation). That
checks everything that was written: weights, attributes, wiring. It does not check Apple's kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.errors import DmaskError
from export.to_coreml import quiet_coremltools

Values = dict[str, Any]


def _conv(v: Values) -> Tensor:
    pad_type = v.get("pad_type", "valid")
    if pad_type not in ("valid", "custom"):
        raise DmaskError(f"the Core ML evaluator knows conv padding 'valid' and 'custom', got '{pad_type}'")
    top, bottom, left, right = v["pad"].tolist() if pad_type == "custom" else (0, 0, 0, 0)
    x = F.pad(v["x"], (left, right, top, bottom))
    strides, dilations = v["strides"].tolist(), v["dilations"].tolist()
    return F.conv2d(x, v["weight"], v.get("bias"), strides, 0, dilations, int(v["groups"]))


def _batch_norm(v: Values) -> Tensor:
    return F.batch_norm(v["x"], v["mean"], v["variance"], v.get("gamma"), v.get("beta"), eps=float(v["epsilon"]))


def _thresholded_relu(v: Values) -> Tensor:
    return torch.where(v["x"] >= v["alpha"], v["x"], torch.zeros_like(v["x"]))


OPERATIONS: dict[str, Callable[[Values], Tensor]] = {
    "add": lambda v: v["x"] + v["y"],
    "batch_norm": _batch_norm,
    "clip": lambda v: v["x"].clamp(float(v["alpha"]), float(v["beta"])),
    "conv": _conv,
    "linear": lambda v: F.linear(v["x"], v["weight"], v.get("bias")),
    "mul": lambda v: v["x"] * v["y"],
    "reduce_mean": lambda v: v["x"].mean(v["axes"].tolist(), keepdim=bool(v["keep_dims"])),
    "relu": lambda v: F.relu(v["x"]),
    "reshape": lambda v: v["x"].reshape(v["shape"].tolist()),
    "sigmoid": lambda v: torch.sigmoid(v["x"]),
    "sigmoid_hard": lambda v: (v["alpha"] * v["x"] + v["beta"]).clamp(0, 1),
    "sub": lambda v: v["x"] - v["y"],
    "thresholded_relu": _thresholded_relu,
}


class CoreMLProgram:
    """The program of a saved ``.mlpackage``.

    Raises:
        DmaskError: when the package does not load.
    """

    def __init__(self, package: Path) -> None:
        weights = package / "Data" / "com.apple.CoreML" / "weights"
        with quiet_coremltools() as coremltools:
            from coremltools.converters.mil.frontend.milproto.load import load

            try:
                spec = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec()
                program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights))
            except Exception as error:  # coremltools raises whatever its readers raise
                raise DmaskError(
                    f"'{package}' does not load as a Core ML package: {error}", "export it again"
                ) from error
        self.function = program.functions["main"]
        self.metadata = dict(spec.description.metadata.userDefined)
        if len(self.function.inputs) != 1 or len(self.function.outputs) != 1:
            raise DmaskError(
                f"'{package}' must have one input and one output, found {len(self.function.inputs)} and"
                f" {len(self.function.outputs)}",
                "export it again",
            )

    def __call__(self, image_1CRR: Tensor) -> Tensor:
        """The output for one input.

        Raises:
            DmaskError: for an operation that the evaluator does not know.
        """
        values: Values = {next(iter(self.function.inputs)): image_1CRR}
        for operation in self.function.operations:
            if operation.op_type == "const":
                values[operation.outputs[0].name] = _constant(operation.outputs[0].val)
                continue
            if operation.op_type not in OPERATIONS:
                raise DmaskError(
                    f"Core ML operation '{operation.op_type}' is unknown to the evaluator; it knows"
                    f" {', '.join(sorted(OPERATIONS))}",
                    "verify this package on a Mac, or add the operation to export/coreml_evaluator.py",
                )
            inputs = {name: values[var.name] for name, var in operation.inputs.items() if var is not None}
            values[operation.outputs[0].name] = OPERATIONS[operation.op_type](inputs)
        output: Tensor = values[self.function.outputs[0].name]
        return output


def _constant(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and np.issubdtype(value.dtype, np.number):
        return torch.from_numpy(np.array(value))
    return value
