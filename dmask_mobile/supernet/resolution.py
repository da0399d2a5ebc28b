"""How one image serves several resolutions (FBNetV2, section 3.1, figure 4E)."""

from __future__ import annotations

import torch
from torch import Tensor


def subsample(x_NCHW: Tensor, size: int) -> Tensor:
    """The nearest-neighbour subsample of square maps at ``size`` x ``size`` pixels; the identity at full size.

    Position i of the result is position ``floor(i * full / size)`` of ``x``. The memory format stays: convolutions on a
    CPU take twice the time in the other one.
    """
    full = x_NCHW.shape[-1]
    if size == full:
        return x_NCHW
    positions = torch.arange(size, device=x_NCHW.device) * full // size
    channels_last = x_NCHW.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return x_NCHW[:, :, positions][:, :, :, positions].contiguous(memory_format=memory_format)


def spread(z_NCHW: Tensor, full: int) -> Tensor:
    """A small map at the positions of a ``full`` x ``full`` one that `subsample` reads, zeros elsewhere.

    ``subsample(spread(z, full), size) == z``. For networks with dense outputs; a classifier pools each resolution over
    its own positions instead, because pooling the spread map would scale it by ``(size / full)^2``.
    """
    size = z_NCHW.shape[-1]
    positions = torch.arange(size) * full // size
    spread_NCHW = z_NCHW.new_zeros(*z_NCHW.shape[:2], full, full)
    spread_NCHW[:, :, positions[:, None], positions] = z_NCHW
    return spread_NCHW
