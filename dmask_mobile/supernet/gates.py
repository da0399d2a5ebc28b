"""The logits of all decisions, and the gates drawn from them.

Shape legend: D decisions, K the largest number of options of any of them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

Gates = tuple[Tensor, ...]
"""One vector over the options for each of ``SearchSpace.decisions``; each sums to 1."""


class GateLogits(nn.Module):
    """The architecture parameters: logits (D, K), all zero at first; unused entries are masked out.

    With one padded matrix, one softmax computes all gates of a step.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.num_options = tuple(len(decision.options) for decision in space.decisions)
        used_DK = torch.arange(max(self.num_options)) < torch.tensor(self.num_options)[:, None]
        self.logits = nn.Parameter(torch.zeros(used_DK.shape))
        self.used_DK: Tensor
        self.register_buffer("used_DK", used_DK, persistent=False)

    def probabilities(self) -> Gates:
        """The noise-free gates ``softmax(logits)``."""
        return self._split(F.softmax(self._masked(self.logits), dim=1))

    def as_arrays(self) -> list[np.ndarray]:
        """The probabilities as float64 arrays, as derivations take them."""
        return [gate.detach().double().numpy() for gate in self.probabilities()]

    def sample(self, temperature: float, generator: torch.Generator) -> Gates:
        """Gumbel-softmax gates, ``softmax((logits + noise) / temperature)`` (FBNetV2, equation 2)."""
        uniform_DK = torch.rand(self.logits.shape, generator=generator).clamp_min(1e-20)
        gumbel_DK = -torch.log(-torch.log(uniform_DK).clamp_max(-1e-20))
        return self._split(F.softmax(self._masked(self.logits + gumbel_DK) / temperature, dim=1))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> Choice:
        """A random child; the gates are the probabilities of its options."""
        probabilities_DK = F.softmax(self._masked(self.logits), dim=1).cpu()
        return Choice(indices=tuple(torch.multinomial(probabilities_DK, 1, generator=generator)[:, 0].tolist()))

    def normalized_entropies(self) -> Tensor:
        """The entropy of each gate with several options, as a share of the uniform one: 1 at first, 0 if decided."""
        entropies = [
            -(gate * gate.clamp_min(1e-12).log()).sum() / torch.tensor(float(len(gate))).log()
            for gate in self.probabilities()
            if len(gate) > 1
        ]
        return torch.stack(entropies) if entropies else torch.zeros(1)

    def _masked(self, values_DK: Tensor) -> Tensor:
        return values_DK.masked_fill(~self.used_DK, -torch.inf)

    def _split(self, gates_DK: Tensor) -> Gates:
        return tuple(gate[:count] for gate, count in zip(gates_DK.unbind(), self.num_options, strict=True))


def one_hot_gates(space: SearchSpace, choice: Choice, dtype: torch.dtype = torch.float32) -> Gates:
    """One-hot gates that select ``choice``."""
    return tuple(
        F.one_hot(torch.tensor(index), len(decision.options)).to(dtype)
        for index, decision in zip(choice.indices, space.decisions, strict=True)
    )
