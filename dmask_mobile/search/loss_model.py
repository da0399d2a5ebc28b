"""A linear model of what each option adds to a child's cross-entropy, fitted to the losses of drawn children.

It plays the same role for the loss as a cost tensor for a cost: contracted with the gates it gives the expected loss,
which is differentiable. Losses are compared only between children that saw the same images, so that easy and hard
images make no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

RIDGE = 3.0  # the weight of the squared effects: equal to three more losses that show no effect


class Evaluation(NamedTuple):
    """The cross-entropy of one child on the images of one ``group``."""

    group: int
    loss: float
    choice: Choice


class LossModel:
    """The effect of each option on the loss, by ridge regression (Hoerl and Kennard, 1970) within groups.

    Options inside a skipped block have no effect. ``spread``: the standard deviation of the predicted losses of the
    evaluated children.

    Args:
        space: the space of the children.
        evaluations: at least one.
    """

    def __init__(self, space: SearchSpace, evaluations: Sequence[Evaluation]) -> None:
        self._skips = {d: s.skip for s in space.slots for d in s.inner if s.skip}
        self._sizes = [len(decision.options) for decision in space.decisions]
        features_MF = np.stack([self._features(evaluation.choice) for evaluation in evaluations])
        groups = [evaluation.group for evaluation in evaluations]
        within_MF = _within(groups, features_MF)
        losses_M1 = _within(groups, np.array([[evaluation.loss] for evaluation in evaluations]))
        normal_FF = within_MF.T @ within_MF + RIDGE * np.eye(within_MF.shape[1])
        effects_F = np.linalg.solve(normal_FF, within_MF.T @ losses_M1)[:, 0]
        self.effects = tuple(np.split(effects_F, np.cumsum(self._sizes)[:-1]))
        self.spread = float((features_MF @ effects_F).std())

    def of(self, choice: Choice) -> float:
        """The predicted loss of one child, minus a constant that is the same for all children."""
        return float(self._features(choice) @ np.concatenate(self.effects))

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """The expectation of that loss under independent gates: a differentiable scalar (float64)."""
        total = torch.zeros((), dtype=torch.float64)
        for decision, (gate, effects) in enumerate(zip(probabilities, self.effects, strict=True)):
            effect = gate.double() @ torch.from_numpy(effects)
            skip = self._skips.get(decision)
            total = total + (effect if skip is None else effect * probabilities[skip][0])
        return total

    def _features(self, choice: Choice) -> np.ndarray:
        """A vector with a 1 for each active option."""
        parts = [np.zeros(size) for size in self._sizes]
        for decision, part in enumerate(parts):
            skip = self._skips.get(decision)
            if skip is None or not choice[skip]:
                part[choice[decision]] = 1.0
        return np.concatenate(parts)


def _within(groups: Sequence[int], values_MF: np.ndarray) -> np.ndarray:
    """The values minus the mean of their group."""
    _, group_M = np.unique(groups, return_inverse=True)
    sums_GF = np.zeros((group_M.max() + 1, values_MF.shape[1]))
    np.add.at(sums_GF, group_M, values_MF)
    within: np.ndarray = values_MF - (sums_GF / np.bincount(group_M)[:, None])[group_M]
    return within
