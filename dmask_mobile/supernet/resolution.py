"""How one image serves several resolutions (FBNetV2, section 3.1, figure 4E)."""

from __future__ import annotations

import torch
from torch import Tensor


def subsample(x_NCHW: Tensor, size: int) -> Tensor:
    """The nearest-neighbour subsample of square maps at ``size`` x ``size`` pixels; the identity at full size.

    Position i of the result is position ``floor(i * full / size)`` of ``x``.
    """
    full = x_NCHW.shape[-1]
    if size == full:
        return x_NCHW
    positions = torch.arange(size) * full // size
    return x_NCHW[:, :, positions][:, :, :, positions]
