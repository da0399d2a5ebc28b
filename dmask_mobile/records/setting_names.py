"""The named settings of the steps. The command line offers the same names; this module loads without any record."""

from __future__ import annotations

from typing import Literal

SearchMethod = Literal["single_path", "dmasking", "sensitivity"]
LossName = Literal["budget", "fbnet", "linear"]
ResolutionMode = Literal["sampled", "exact"]
Expectation = Literal["exact", "effective_shapes"]
InitialWeights = Literal["scratch", "supernet"]
EngineName = Literal["local", "ray"]
MixedPrecision = Literal["no", "bf16", "fp16"]
Precision = Literal["fp32", "fp16", "int8"]
SearchTeacher = Literal["none", "original"]
ModelFormat = Literal["onnx", "coreml", "litert", "executorch", "ncnn"]
Importance = Literal["l1", "bn", "taylor"]
Layout = Literal["NCHW", "NHWC"]
RECIPES = ("small", "photographs", "imagenet", "finetune")
"""The recipes that ship."""
