"""Multiply-adds and parameters of convolutions and linear layers; only weights count, not biases or norms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.records.block import BlockSpec


class Layer(NamedTuple):
    """The numbers of a convolution that are needed for counting; a linear layer is a convolution of a 1 x 1 map."""

    in_width: int
    out_width: int
    kernel: int
    groups: int
    out_size: int

    @property
    def params(self) -> int:
        """The number of weights: k^2 C_in C_out / groups."""
        return self.kernel**2 * self.in_width * self.out_width // self.groups

    @property
    def macs(self) -> int:
        """The number of multiply-adds: k^2 h_out w_out C_in C_out / groups."""
        return self.params * self.out_size**2


def block_layers(block: BlockSpec, in_size: int) -> tuple[Layer, ...]:
    """The convolutions and linear layers of a block on an ``in_size`` x ``in_size`` input."""
    c_in, c_mid, c_out = block.in_width, block.hidden_width, block.out_width
    out_size = block.out_size(in_size)
    match block.kind:
        case "skip":
            return ()
        case "conv" | "widening_skip":
            return (Layer(c_in, c_out, block.kernel, 1, out_size),)
        case "head":
            hidden = (Layer(c_in, c_mid, 1, 1, 1),) if c_mid else ()
            return (*hidden, Layer(c_mid or c_in, c_out, 1, 1, 1))
        case "pooled_inverted_residual":
            return (Layer(c_in, c_mid, 1, 1, in_size), Layer(c_mid, c_out, 1, 1, 1))
        case "inverted_residual" | "fused_inverted_residual":
            squeeze = (Layer(c_mid, block.se_width, 1, 1, 1), Layer(block.se_width, c_mid, 1, 1, 1))
            into = _hidden_layers(block, in_size, out_size)
            return (*into, *(squeeze if block.se_width else ()), Layer(c_mid, c_out, 1, 1, out_size))


def _hidden_layers(block: BlockSpec, in_size: int, out_size: int) -> Iterator[Layer]:
    """The convolutions between a block's input and its hidden feature map."""
    c_in, c_mid = block.in_width, block.hidden_width
    if block.kind == "fused_inverted_residual":
        yield Layer(c_in, c_mid, block.kernel, 1, out_size)
        return
    if block.start_kernel:
        in_size = in_size if block.depthwise else out_size
        yield Layer(c_in, c_in, block.start_kernel, c_in, in_size)
    if block.expand:
        yield Layer(c_in, c_mid, 1, 1, in_size)
    if block.depthwise:
        yield Layer(c_mid, c_mid, block.kernel, c_mid, out_size)


class Macs(AdditiveCost):
    """Multiply-adds of convolutions and linear layers."""

    name = "macs"
    unit = "macs"

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """Multiply-adds of one block."""
        return sum(layer.macs for layer in block_layers(block, in_size))


class Params(AdditiveCost):
    """Weights of convolutions and linear layers."""

    name = "params"
    unit = "params"

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """Weights of one block."""
        return sum(layer.params for layer in block_layers(block, in_size))
