"""The paper's differentiable cost: every layer counted at its *effective* input and output shape.

FBNetV2 (Wan et al., CVPR 2020), section 3.3: with gates g the effective width of a tensor is ``sum_i g_i C_i``, its
effective size ``sum_i g_i h_i``, and a layer costs ``k^2 h w C_in C_out / groups`` with both ends effective. That is
a product of expectations: where factors share a gate it differs from the expected cost, which `costs.chain` gives
exactly (and which is the default). At one-hot gates both are the child's own cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dmask_mobile.records.block import round8
from dmask_mobile.records.space import SE_REDUCTION, SearchSpace, Slot


class EffectiveShapes:
    """Multiply-adds or parameters of a space at effective shapes; satisfies `costs.model.ExpectedCost`."""

    def __init__(self, space: SearchSpace, count: Literal["macs", "params"]) -> None:
        self.space = space
        self.count = count

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The cost at these gates, a differentiable float64 scalar.

        Args:
            probabilities: one vector over the options for each of ``SearchSpace.decisions``.
        """
        gates = [gate.double() for gate in probabilities]
        largest = self.space.largest()
        sizes_R = torch.tensor(self.space.input.resolutions, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for slot in self.space.slots:
            block = self.space.block(slot, largest)
            out_sizes_R = torch.tensor([block.out_size(int(size)) for size in sizes_R], dtype=torch.float64)
            total = total + self._slot(slot, gates, self._area(gates[0], sizes_R), self._area(gates[0], out_sizes_R))
            sizes_R = out_sizes_R
        return total

    def _area(self, gate_R: Tensor, sizes_R: Tensor) -> Tensor:
        """Pixels of the effective map; 1 where parameters are counted."""
        return (gate_R @ sizes_R) ** 2 if self.count == "macs" else torch.ones((), dtype=torch.float64)

    def _slot(self, slot: Slot, gates: list[Tensor], in_area: Tensor, out_area: Tensor) -> Tensor:
        c_in, c_out = self._mean(gates, slot.in_width), self._mean(gates, slot.out_width)
        if slot.kind != "inverted_residual":
            return slot.conv_kernel**2 * c_in * c_out * out_area
        assert slot.expansion is not None
        assert slot.kernel is not None
        assert slot.squeeze_excite is not None
        expansions = self.space.decisions[slot.expansion].options
        hidden_IE = torch.tensor(
            [[round8(width * e) for e in expansions] for width in self.space.decisions[slot.in_width].options],
            dtype=torch.float64,
        )
        squeeze_IE = hidden_IE.clone().apply_(lambda width: round8(width / SE_REDUCTION))
        joint_IE = torch.outer(gates[slot.in_width], gates[slot.expansion])
        hidden, squeeze = (joint_IE * hidden_IE).sum(), (joint_IE * squeeze_IE).sum()
        kernels = torch.tensor(self.space.decisions[slot.kernel].options, dtype=torch.float64)
        kernel_area = gates[slot.kernel] @ kernels**2
        cost = c_in * hidden * in_area + kernel_area * hidden * out_area + hidden * c_out * out_area
        cost = cost + 2 * hidden * squeeze * self._mean(gates, slot.squeeze_excite)
        return cost if slot.skip is None else cost * gates[slot.skip][0]

    def _mean(self, gates: list[Tensor], decision: int) -> Tensor:
        return gates[decision] @ torch.tensor(self.space.decisions[decision].options, dtype=torch.float64)
