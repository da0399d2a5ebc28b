"""Selects the part of a shared tensor that belongs to a child."""

from __future__ import annotations

import torch
from torch import Tensor


def slice_of(shared: Tensor, shape: torch.Size) -> Tensor:
    """The first channels of every axis and the centre of a depthwise kernel, as a view of ``shape``."""
    channels = shared[tuple(slice(size) for size in shape[:2])]
    borders = [(full - size) // 2 for full, size in zip(channels.shape[2:], shape[2:], strict=True)]
    window = tuple(slice(border, border + size) for border, size in zip(borders, shape[2:], strict=True))
    return channels[:, :, window[0], window[1]] if window else channels
