"""The paper's differentiable cost: every layer is counted at its *effective* input and output shape.

FBNetV2 (Wan et al., CVPR 2020), section 3.3: with gates g the effective width of a tensor is ``sum_i g_i C_i``, its
effective size ``sum_i g_i h_i``, and a layer costs ``k^2 h w C_in C_out / groups`` with effective widths and sizes.
This is a product of expectations. It differs from the expected cost if factors share a gate; `costs.chain` computes the
expected cost exactly and is the default. With one-hot gates both equal the child's cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dmask_mobile.records.block import RESIDUAL_KINDS
from dmask_mobile.records.space import SearchSpace, Slot


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
        """The number of pixels of the effective map; 1 if parameters are counted."""
        return (gate_R @ sizes_R) ** 2 if self.count == "macs" else torch.ones((), dtype=torch.float64)

    def _slot(self, slot: Slot, gates: list[Tensor], in_area: Tensor, out_area: Tensor) -> Tensor:
        c_in, c_out = self._mean(gates, slot.in_width), self._mean(gates, slot.out_width)
        if slot.kind == "head" and slot.expansion is not None:
            return (c_in + c_out) * self._mean(gates, slot.expansion)
        cost = (
            self._hidden_block(slot, gates, in_area, out_area, c_in, c_out)
            if slot.kind in RESIDUAL_KINDS
            else (self._kernel_area(slot.kernel, gates, slot.conv_kernel) * c_in * c_out * out_area)
        )
        return cost if slot.skip is None else cost * gates[slot.skip][0]

    def _hidden_block(
        self, slot: Slot, gates: list[Tensor], in_area: Tensor, out_area: Tensor, c_in: Tensor, c_out: Tensor
    ) -> Tensor:
        hidden, squeeze = self._hidden_and_squeeze(slot, gates)
        kernel_area = self._kernel_area(slot.kernel, gates)
        cost = hidden * c_out * out_area + 2 * hidden * squeeze
        if slot.is_dense:
            return cost + kernel_area * c_in * hidden * out_area
        wide_area = in_area if slot.depthwise else out_area
        if slot.start_kernel is not None:
            cost = cost + self._kernel_area(slot.start_kernel, gates) * c_in * wide_area
        if slot.expansion is not None:
            cost = cost + c_in * hidden * wide_area
        return cost + kernel_area * hidden * out_area if slot.depthwise else cost

    def _hidden_and_squeeze(self, slot: Slot, gates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The effective hidden width, and the effective squeeze width times the probability of squeeze-excite."""
        space, squeeze_excite = self.space, slot.squeeze_excite
        assert squeeze_excite is not None
        options = (1.0,) if slot.expansion is None else space.decisions[slot.expansion].options
        hidden_IE = torch.tensor(
            [[space.hidden_width(slot, int(c), e) for e in options] for c in space.decisions[slot.in_width].options],
            dtype=torch.float64,
        )
        gate_E = torch.ones(1, dtype=torch.float64) if slot.expansion is None else gates[slot.expansion]
        joint_IE = torch.outer(gates[slot.in_width], gate_E)
        hidden = (joint_IE * hidden_IE).sum()
        if space.decisions[squeeze_excite].kind == "squeeze_width":
            return hidden, self._mean(gates, squeeze_excite)
        squeeze_IE = hidden_IE.clone().apply_(lambda width: space.squeeze_width(slot, int(width), True))
        return hidden, (joint_IE * squeeze_IE).sum() * self._mean(gates, squeeze_excite)

    def _kernel_area(self, decision: int | None, gates: list[Tensor], fixed: int = 1) -> Tensor:
        if decision is None:
            return torch.tensor(float(fixed**2), dtype=torch.float64)
        return gates[decision] @ torch.tensor(self.space.decisions[decision].options, dtype=torch.float64) ** 2

    def _mean(self, gates: list[Tensor], decision: int) -> Tensor:
        return gates[decision] @ torch.tensor(self.space.decisions[decision].options, dtype=torch.float64)
