"""Builds an `nn.Module` from a `ChildSpec`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmask_mobile.nets.blocks import build_block, initialize
from dmask_mobile.records.child import ChildSpec


class ChildNetwork(nn.Module):
    """A child's blocks in order: (N, channels, resolution, resolution) to class scores (N, classes).

    Args:
        child: the network.
    """

    def __init__(self, child: ChildSpec) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(build_block(spec) for spec in child.blocks)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        return x_NCHW


def build(child: ChildSpec, generator: torch.Generator | None = None) -> ChildNetwork:
    """The network of ``child`` with random weights from ``generator`` (default: seed 0).

    >>> from dmask_mobile.nets.named import named_child
    >>> network = build(named_child("fbnetv2_f1"))
    """
    network = ChildNetwork(child)
    initialize(network, generator or torch.Generator().manual_seed(0))
    return network
