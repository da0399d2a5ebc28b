"""`Neighbours`: children that differ little from a base, with what they share with it computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from dmask_mobile.records.choice import Choice
from dmask_mobile.supernet.supernet import MaskedSupernet


class Neighbours:
    """Class scores of many children for the same images.

    ``Neighbours(supernet, x, base)(child)`` equals ``supernet(x, child)`` without gradients, but computes the blocks
    with which the child begins like the base only once. It holds the feature maps between the base's blocks.

    Args:
        supernet: with the weights of all children.
        x_NCHW: images at the largest resolution.
        base: the child that the others are like.
    """

    @torch.no_grad()
    def __init__(self, supernet: MaskedSupernet, x_NCHW: Tensor, base: Choice) -> None:
        self.supernet = supernet
        self.x_NCHW = x_NCHW
        blocks = supernet.blocks_of(base)
        self.specs = [block.spec for block in blocks]
        self.inputs = [supernet.images_of(base, x_NCHW)]
        for block in blocks[:-1]:
            self.inputs.append(block(self.inputs[-1]))

    @torch.no_grad()
    def __call__(self, child: Choice) -> Tensor:
        """The child's class scores (N, classes)."""
        blocks = self.supernet.blocks_of(child)
        y = self.supernet.images_of(child, self.x_NCHW)
        first = 0
        if y.shape == self.inputs[0].shape:
            as_base = [block.spec == spec for block, spec in zip(blocks[:-1], self.specs, strict=False)]
            first = (*as_base, False).index(False)
            y = self.inputs[first]
        for block in blocks[first:]:
            y = block(y)
        return y
