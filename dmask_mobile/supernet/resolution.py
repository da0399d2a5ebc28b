"""How one image serves several resolutions (FBNetV2, section 3.1, figure 4E)."""

from __future__ import annotations

import torch
from torch import Tensor


def subsample(x_NCHW: Tensor, size: int) -> Tensor:
    """Square maps reduced to ``size`` x ``size`` pixels by nearest-neighbour subsampling; unchanged at full size.

    Position i of the result is position ``floor(i * full / size)`` of ``x``. The memory format is kept: convolutions on
    a CPU take twice as long in the other one.
    """
    full = x_NCHW.shape[-1]
    if size == full:
        return x_NCHW
    positions = torch.arange(size, device=x_NCHW.device) * full // size
    channels_last = x_NCHW.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return x_NCHW[:, :, positions][:, :, :, positions].contiguous(memory_format=memory_format)


def spread(z_NCHW: Tensor, full: int) -> Tensor:
    """A ``full`` x ``full`` map with ``z`` at the positions that `subsample` reads, and zeros elsewhere.

    ``subsample(spread(z, full), size) == z``. This is for networks with dense outputs. A classifier pools each
    resolution over its own positions instead, because pooling the larger map would scale the result by ``(size /
    full)^2``.
    """
    size = z_NCHW.shape[-1]
    positions = torch.arange(size) * full // size
    spread_NCHW = z_NCHW.new_zeros(*z_NCHW.shape[:2], full, full)
    spread_NCHW[:, :, positions[:, None], positions] = z_NCHW
    return spread_NCHW
