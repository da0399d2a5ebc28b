"""The network as it is deployed: raw pixels in 0..1 to class scores, normalization included."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Deployable(nn.Module):
    """Exact per-channel normalization ``(x - mean) / std``, then the network; always in evaluation mode.

    Args:
        network: maps normalized images (N, C, R, R) to scores (N, classes).
        mean: one value a channel, for images in 0..1.
        std: likewise.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.scale: Tensor
        self.shift: Tensor
        scale = 1 / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean, dtype=torch.float64) * scale).float().view(1, -1, 1, 1))
        self.to(memory_format=torch.contiguous_format)
        self.eval()

    def forward(self, image_NCRR: Tensor) -> Tensor:
        scores: Tensor = self.network(image_NCRR * self.scale + self.shift)
        return scores
