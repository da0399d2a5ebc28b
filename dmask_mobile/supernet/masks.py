"""Masks over channels and kernel positions, built from gates.

A channel mask is the survival function of the chosen width, ``mask[c] = P(width > c)``: the gate-weighted sum of
the paper's binary masks (FBNetV2, equation 5), computed from the distinct widths only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WidthMask(nn.Module):
    """Computes a mask over channels from the probabilities of a list of widths.

    Widths may repeat and may be in any order.

    Args:
        widths: the width that each probability stands for; the widest gives the number of channels.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        distinct = torch.tensor(sorted(set(widths)))
        self.to_distinct: Tensor
        self.step_of_channel: Tensor
        # (options, distinct widths): adds up the probabilities of options with the same width
        self.register_buffer("to_distinct", (torch.tensor(widths)[:, None] == distinct).float(), persistent=False)
        self.register_buffer("step_of_channel", _steps(distinct.tolist()), persistent=False)

    def forward(self, probabilities: Tensor) -> Tensor:
        """The mask, one value in [0, 1] a channel.

        Args:
            probabilities: of any shape; flattened, they correspond to ``widths``.
        """
        by_width = probabilities.flatten() @ self.to_distinct.to(probabilities.dtype)
        survival = by_width.flip(0).cumsum(0).flip(0)
        return survival[self.step_of_channel]


def _steps(distinct: list[int]) -> Tensor:
    """For each channel, the index of the smallest width that includes it."""
    return torch.searchsorted(torch.tensor(distinct), torch.arange(distinct[-1]), right=True)


def agreement(in_widths: Sequence[int], out_widths: Sequence[int]) -> Tensor:
    """A matrix (inputs, outputs) with 1 where the widths are equal, which is where a child has a shortcut."""
    return (torch.tensor(in_widths)[:, None] == torch.tensor(out_widths)).float()


def centred_kernels(kernels: Sequence[int]) -> Tensor:
    """Binary masks (options, K, K): each kernel is the centre of the largest kernel, K x K."""
    largest = kernels[-1]
    masks = torch.zeros(len(kernels), largest, largest)
    for mask, kernel in zip(masks, kernels, strict=True):
        border = (largest - kernel) // 2
        mask[border : largest - border, border : largest - border] = 1
    return masks
