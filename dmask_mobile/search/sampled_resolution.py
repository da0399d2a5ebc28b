"""Runs one resolution a step, with a gradient that still compares all resolutions.

Running every resolution in every step (FBNetV2, section 3.1, form E) multiplies the cost of a step. Here each step
draws one, ``r ~ p = softmax(logits)``, and the resolution's logits learn by the score function

    grad E[CE] = E[ (CE_r - baseline) grad log p_r ]

with a running mean as the baseline (Williams, 1992). The cost term stays exact, because it needs no forward pass. A
straight-through gradient would contain information only about the resolution that was drawn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.supernet.gates import GateLogits, Gates

DECAY = 0.9  # of the running mean


class SampledResolution:
    """Draws resolutions, and adds a gradient for the resolution's logits to the cross-entropy of the drawn one."""

    def __init__(self) -> None:
        self.baseline: float | None = None

    def draw(self, gates: Gates, logits: GateLogits, generator: torch.Generator) -> tuple[Gates, int]:
        """``gates`` with the gate of the resolution replaced by a one-hot draw, and the index that was drawn."""
        probabilities = logits.probabilities()[0].detach()
        index = int(torch.multinomial(probabilities, 1, generator=generator))
        one_hot = F.one_hot(torch.tensor(index), len(probabilities)).to(gates[0].dtype)
        return (one_hot, *gates[1:]), index

    def with_score(self, cross_entropy: Tensor, value: float, logits: GateLogits, index: int) -> Tensor:
        """The same cross-entropy with the score-function gradient for the resolution's logits.

        ``value``: the cross-entropy of the whole batch.
        """
        baseline = value if self.baseline is None else self.baseline
        self.baseline = DECAY * baseline + (1 - DECAY) * value
        log_probability = logits.probabilities()[0][index].log()
        return cross_entropy + (value - baseline) * (log_probability - log_probability.detach())
