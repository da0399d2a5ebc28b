"""Writes Core ML (ML program), converted from TorchScript by coremltools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.records.artifact import ModelDescription, Precision
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.temporary import folder_beside
from export.formats.coreml.reader import CoreMLModel, quiet_coremltools
from export.formats.protocols import ExportedModel, ExportRequest

LARGEST_BATCH = 1024  # for an open batch, because an ML program needs a bound


class CoreML:
    """`Format` for Core ML: an ML program for iOS 16 and later, float32 at its input and output.

    fp16: weights and computation in float16. int8: every weight of convolutions and linear layers in int8, symmetric,
    one scale for each output channel; activations stay float32. (coremltools can quantize activations only on macOS,
    for iOS 17, because it must run the model on calibration images.)
    """

    suffix = ".mlpackage"
    package = "coremltools"
    refused: ClassVar[Mapping[Precision, str]] = {}
    extra = ""
    int8_activations = False  # only weights are quantized
    layouts = ("NCHW",)
    dynamic_batch = True
    crashes_on_damage = False

    def weight_bytes(self, child: ChildSpec, precision: Precision) -> float:
        """Bytes of the child's weights; see `Format`."""
        return WeightBytes(precision).estimate(child).value

    def write(self, request: ExportRequest, path: Path) -> None:
        """Converts the model and writes the package to ``path`` in one step; see `Format`."""
        with quiet_coremltools():
            description = request.description
            model = to_coreml(
                request.model, description.input_shape, description.precision, dynamic_batch=description.batch is None
            )
            _describe(model, description)
            with folder_beside(path) as fresh:
                model.save(str(fresh))

    def open(self, path: Path) -> ExportedModel:
        """The package, ready to be evaluated; see `Format`."""
        return CoreMLModel(path)


def to_coreml(
    module: nn.Module, input_shape: Sequence[int], precision: Precision = "fp32", *, dynamic_batch: bool = False
) -> Any:
    """coremltools' model of ``module`` in evaluation mode: ``input`` -> ``output``, both float32."""
    import coremltools

    batch = coremltools.RangeDim(1, LARGEST_BATCH, default=1) if dynamic_batch else input_shape[0]
    with quiet_coremltools():
        return coremltools.convert(
            torch.jit.trace(module.eval(), torch.zeros(*input_shape)),  # type: ignore[no-untyped-call]
            convert_to="mlprogram",
            # float32 must be set explicitly: by default, iOS 16 and later get float16 inputs and outputs
            inputs=[
                coremltools.TensorType("input", shape=coremltools.Shape((batch, *input_shape[1:])), dtype=np.float32)
            ],
            outputs=[coremltools.TensorType("output", dtype=np.float32)],
            compute_precision=coremltools.precision.FLOAT16 if precision == "fp16" else coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
            pass_pipeline=_passes(precision),
        )


def _passes(precision: Precision) -> Any:
    """coremltools' default passes without one of them, and for int8 the pass that quantizes weights."""
    import coremltools
    from coremltools.optimize import coreml

    passes = coremltools.PassPipeline.DEFAULT
    # It makes a batch norm of the normalization's mul and add, with epsilon 1e-5 for 0: a scale 5e-6 too small.
    # Without it a child of the demo space is 3.1e-7 of its logits' range from PyTorch, with it 2.3e-6.
    passes.remove_passes({"common::fuse_elementwise_to_batchnorm"})
    if precision == "int8":
        # coreml.linear_quantize_weights also runs this pass, but then converts again with the pass removed above.
        # By default, tensors of up to 2048 numbers stay in float, which is most of them in a small child.
        weights = coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
        passes.append_pass("compression::linear_quantize_weights")
        passes.set_options(
            "compression::linear_quantize_weights",
            {"config": coreml.OptimizationConfig(op_type_configs={"conv": weights, "linear": weights})},
        )
    return passes


def _describe(model: Any, description: ModelDescription) -> None:
    """Writes the description to the fields that Xcode shows, and to the user-defined metadata."""
    child, preprocessing = description.child, description.preprocessing
    low, high = preprocessing.input_range
    batch = "N" if description.batch is None else str(description.batch)
    sizes = ", ".join([batch, *map(str, description.input_shape[1:])])
    meaning = "probabilities" if description.output == "probabilities" else "logits (scores before softmax)"
    model.author, model.license = description.author, description.license
    model.short_description = f"{child.name}, {description.precision}, {child.resolution} px"
    model.input_description["input"] = (
        f"Images ({sizes}), {preprocessing.layout}, float32, {preprocessing.colors}, values {low:g} to {high:g};"
        " the model itself subtracts the mean and divides by the standard deviation"
    )
    model.output_description["output"] = (
        f"({batch}, {child.classes}), float32: {meaning} of the classes, in the order of dmask.class_names"
    )
    preview = {"labels": description.class_names, "colorSpace": preprocessing.colors}
    model.user_defined_metadata.update(
        {
            **description.to_metadata(),
            "com.apple.coreml.model.preview.type": "imageClassifier",
            "com.apple.coreml.model.preview.parameters": json.dumps(preview),
        }
    )
