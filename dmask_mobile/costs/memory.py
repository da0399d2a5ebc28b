"""Bytes of the weights in an exported file, and of the activations that are in memory at the same time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dmask_mobile.costs.chain import BlockCosts, digest_of, lowest_path, tabulate
from dmask_mobile.costs.counts import block_layers
from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.costs.values import CostRange
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.block import RESIDUAL_KINDS, BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.cost import CostEstimate
from dmask_mobile.records.space import SearchSpace

FLOAT32_BYTES = 4
BYTES: dict[Precision, tuple[int, int]] = {"fp32": (4, 4), "fp16": (2, 2), "int8": (1, 8)}
"""The bytes of one weight, and the additional bytes for one output channel."""


class WeightBytes(AdditiveCost):
    """Bytes of weights and biases after batch norms are folded, when every convolution has a bias.

    int8: one byte for each weight, and for each output channel four bytes of bias and four of scale.
    """

    name = "weight_bytes"
    unit = "bytes"

    def __init__(self, precision: Precision = "fp32") -> None:
        self.weight_bytes, self.channel_bytes = BYTES[precision]

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """Bytes of one block's weights and biases."""
        return sum(
            self.weight_bytes * layer.params + self.channel_bytes * layer.out_width
            for layer in block_layers(block, in_size)
        )


class PeakActivationBytes:
    """The peak of the bytes of fp32 activations in memory, batch 1.

    Assumptions: layers run one after the other; a tensor is freed after its last use; norms, activations, the sums of
    shortcuts and the scaling of squeeze-excite happen in place. So a layer needs memory for its input and its output,
    and inside a block with a shortcut also for the input of the block. A network needs as much as its most demanding
    block: the cost is a maximum, not a sum.
    """

    name = "peak_activation_bytes"
    unit = "bytes"

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """The bytes in memory at the most demanding layer of one block; 0 for the identity."""
        if block.kind == "skip":
            return 0.0
        out_size = block.out_size(in_size)
        before, after = block.in_width * in_size**2, block.out_width * out_size**2
        layers: list[int] = []
        if block.kind in RESIDUAL_KINDS:
            layers = self._inverted_residual(block, in_size, out_size)
        elif block.kind == "pooled_inverted_residual":
            wide = block.hidden_width * in_size**2
            layers = [before + wide, wide + block.hidden_width, block.hidden_width + block.out_width]
        elif block.kind == "head":
            widths = [block.in_width, *([block.hidden_width] if block.hidden_width else []), block.out_width]
            layers = [before + block.in_width, *(low + high for low, high in itertools.pairwise(widths))]
        else:
            layers = [before + after]
        # The shortcut keeps the input of the block; without an expansion, the first layer reads the same tensor.
        kept = [before if block.residual else 0] * len(layers)
        kept[0] = 0
        return float(FLOAT32_BYTES * max(layer + extra for layer, extra in zip(layers, kept, strict=True)))

    @staticmethod
    def _inverted_residual(block: BlockSpec, in_size: int, out_size: int) -> list[int]:
        """For each layer, the number of values in its input and its output together."""
        layers = []
        last = block.in_width * in_size**2
        if block.start_kernel:
            size = in_size if block.depthwise else out_size
            layers.append(last + block.in_width * size**2)
            last = block.in_width * size**2
        hidden = block.hidden_width * out_size**2
        if block.expand:
            wide = block.hidden_width * in_size**2 if block.kind == "inverted_residual" and block.depthwise else hidden
            layers.append(last + wide)
            last = wide
        if block.kind == "inverted_residual" and block.depthwise:
            layers.append(last + hidden)
        if block.se_width:  # besides the map: the pooled and the squeezed vector
            layers.append(hidden + block.hidden_width + block.se_width)
        return [*layers, hidden + block.out_width * out_size**2]

    def estimate(self, child: ChildSpec) -> CostEstimate:
        """The peak of one network."""
        value = max(self.block_cost(block, in_size) for block, in_size in child.located_blocks())
        return CostEstimate(cost=self.name, value=value, unit=self.unit, num_measured=len(child.blocks))

    def on(self, space: SearchSpace) -> SpacePeak:
        """The peak of every child of ``space``."""
        return SpacePeak(space, self.name, self.unit, tabulate(space, self.block_cost))


class SpacePeak:
    """The highest block cost of every child of a space; satisfies `costs.model.SpaceCost`.

    The expectation of a maximum has no cheap exact form. ``expected`` is the maximum over blocks of the expected block
    cost, at each resolution: a lower bound of the expectation, and exact at one-hot gates. Derivation does not rely
    on it: there the peak is a filter on blocks.
    """

    def __init__(self, space: SearchSpace, name: str, unit: str, blocks: tuple[BlockCosts, ...]) -> None:
        self.space = space
        self.name = name
        self.unit = unit
        self.blocks = blocks

    def digest(self) -> str:
        """A digest that identifies the peaks of all children."""
        return digest_of(self.blocks)

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The estimated peak under the gates, a differentiable float64 scalar; see above."""
        gates = [gate.double() for gate in probabilities]
        return torch.stack([block.expected(gates) for block in self.blocks]).amax(0) @ gates[0]

    def cost(self, choice: Choice) -> float:
        """The peak of one child."""
        return max(block.of(choice) for block in self.blocks)

    def reachable(self) -> CostRange:
        """The lowest and the highest peak of any child."""
        num_resolutions = len(self.space.input.resolutions)
        lows = [
            lowest_path(self.space, [block.values[r] for block in self.blocks], np.maximum)
            for r in range(num_resolutions)
        ]
        return CostRange(min(lows), max(float(block.values.max()) for block in self.blocks))
