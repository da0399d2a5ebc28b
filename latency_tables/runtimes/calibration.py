"""Calibration data for int8 models of which only the latency matters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_INPUTS = 4


def calibration(input_shape: Sequence[int]) -> Tensor:
    """Random inputs (M, C, H, W) in 0..1; the same every time."""
    return torch.rand(NUM_INPUTS, *input_shape[1:], generator=torch.Generator().manual_seed(0))
