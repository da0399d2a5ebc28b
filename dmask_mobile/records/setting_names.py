"""The named settings of a search and a training; the command line offers the same names."""

from __future__ import annotations

from typing import Literal

LossName = Literal["budget", "fbnet", "linear"]
ResolutionMode = Literal["sampled", "exact"]
Expectation = Literal["exact", "effective_shapes"]
InitialWeights = Literal["scratch", "supernet"]
EngineName = Literal["local", "ray"]
MixedPrecision = Literal["no", "bf16", "fp16"]
