"""The gates learn how much each option changes the answers of a given, trained network.

For a search from trained weights. A gate step gives one decision of a base child another option, and measures how far
the child's scores then are from those of the given network: the Kullback-Leibler divergence on the same images, with
the statistics of the batch in batch norms. It needs no labels, so that a network of other classes can be judged as
well. Pruning knows this as sensitivity analysis (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017,
section 3.2).

In the first epoch the base is the given network, later the best child within the budgets by all epochs so far: an
option that costs little alone may cost much beside others, such as the last of several blocks that could be skipped.
The effect of an option is its mean over the epochs. The gates become the Gibbs distribution of the sum of effects, and
the derived child is the one within the budgets with the smallest sum. No weight is trained, so that the child starts
from the weights of the given network, and a search takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import derive_within
from dmask_mobile.search.loss_model import Evaluation
from dmask_mobile.search.near_budget import centre_on_budgets, decide
from dmask_mobile.search.parts import SearchParts
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.neighbours import Neighbours
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checks import Agreed

SMALLEST = 1e-6  # divergence


class Sensitivity:
    """Measures each option beside a base child; the gates learn from the divergences after each epoch.

    Args:
        parts: the search.
        given: the given network as a supernet, with its own classes; on the device of the search.
    """

    def __init__(self, parts: SearchParts, given: MaskedSupernet) -> None:
        self.parts = parts
        self.given = given.train()
        self.num_steps = len(changes_of(self.draw(), self._counts))

    def draw(self) -> Choice:
        """The widest child; no weight step trains it."""
        return self.parts.supernet.space.largest()

    def steps(self) -> Iterator[Agreed]:
        """Measures the base of this epoch and the remaining changes of it, in all epochs on the same images."""
        base = self._base(self.parts.state.epoch)
        yield from self._measure(base, changes_of(base, self._counts)[len(self.parts.state.gate_steps) :])

    def typical_steps(self, count: int) -> Iterator[Agreed]:
        """Measures the given network and ``count`` changes of it, from its first block to its last one."""
        base, *changed = changes_of(self.draw(), self._counts)
        spread = np.linspace(0, len(changed), count, endpoint=False).astype(int)
        yield from self._measure(base, [base, *(changed[number] for number in spread)])

    def _measure(self, base: Choice, children: Sequence[Choice]) -> Iterator[Agreed]:
        parts = self.parts
        batch = next(parts.batches(parts.for_gates, parts.settings.evaluation_images, parts.settings.seed, 0))
        with torch.no_grad(), parts.machine.autocast():
            wanted_NK = log_probabilities(self.given(batch.images, self.draw()))
            neighbours = Neighbours(self.given, batch.images, base)
        as_given = batch._replace(labels=wanted_NK.argmax(1))
        for child in children:
            with parts.machine.autocast():
                scores_NK = log_probabilities(neighbours(child))
            divergence = F.kl_div(scores_NK, wanted_NK, reduction="sum", log_target=True).cpu() * batch.weight
            agreed = parts.agree(scores_NK, as_given, divergence, "gates", len(parts.state.gate_steps))
            parts.state.evaluations.append(Evaluation(parts.state.epoch, agreed.loss, child))
            yield agreed

    def finish_epoch(self) -> None:
        """Lets the gates prefer options with small effects, and decides them at the budgets."""
        parts = self.parts
        logits = self._gates(parts.state.epoch + 1)
        decide(logits, parts.loss.costs, parts.loss.budgets, parts.settings.schedule.last_entropy)
        parts.state.logits.load_state_dict(logits.state_dict())

    def metrics(self) -> dict[str, Any]:
        """Empty: there is no temperature, and the budgets are met without controllers."""
        return {}

    @property
    def _counts(self) -> list[int]:
        return [len(decision.options) for decision in self.parts.supernet.space.decisions]

    def _base(self, epoch: int) -> Choice:
        """The child whose changes are measured in an epoch."""
        if epoch == 0:
            return self.draw()
        return derive_within(self.parts.budgets, self._gates(epoch).as_arrays()).choice

    def _gates(self, epochs: int) -> GateLogits:
        """The gates by the first epochs, with expected costs at the budgets."""
        parts, start = self.parts, self.num_steps
        evaluations = parts.state.evaluations
        effects = mean_effects([evaluations[e * start : (e + 1) * start] for e in range(epochs)], self._counts)
        typical = max(SMALLEST, float(np.mean([np.ptp(effect) for effect in effects if len(effect) > 1] or [1.0])))
        logits = GateLogits(parts.supernet.space)
        with torch.no_grad():
            for row, effect in zip(logits.logits, effects, strict=True):
                row[: len(effect)] = torch.from_numpy(-effect / typical)
        centre_on_budgets(logits, parts.loss.costs, parts.loss.budgets)
        return logits


def log_probabilities(scores_NK: Tensor) -> Tensor:
    """Those of the classes, in float32 whatever the precision of the scores."""
    return scores_NK.float().log_softmax(1)


def changes_of(base: Choice, counts: Sequence[int]) -> list[Choice]:
    """The base, and the children that differ from it in one decision.

    Args:
        base: any child.
        counts: the number of options of each decision.
    """
    return [base] + [
        Choice(indices=(*base.indices[:decision], option, *base.indices[decision + 1 :]))
        for decision, count in enumerate(counts)
        for option in range(count)
        if option != base[decision]
    ]


def mean_effects(epochs: Sequence[Sequence[Evaluation]], counts: Sequence[int]) -> list[np.ndarray]:
    """For each decision the divergence that each of its options adds to that of the last one, a mean over the epochs.

    Args:
        epochs: what was measured in each: the children of `changes_of`, in that order.
        counts: the number of options of each decision.
    """
    sums = [np.zeros(count) for count in counts]
    for base, *changed in epochs:
        added = [np.zeros(count) for count in counts]
        for evaluation in changed:
            decision = next(d for d, option in enumerate(evaluation.choice.indices) if option != base.choice[d])
            added[decision][evaluation.choice[decision]] = evaluation.loss - base.loss
        for total, each in zip(sums, added, strict=True):
            total += (each - each[-1]) / len(epochs)
    return sums
