"""A linear model of what each option adds to a child's cross-entropy.

It plays the same role for the loss as a cost tensor for a cost. It is fitted to two kinds of observations: many losses
of children with supernet weights, and a few losses of children that were trained separately for a short time
(`trials`). Trials have priority: in shared weights that were trained no longer than a child, widths and depths make
hardly any difference (docs/search_quality.md has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

RIDGE = 3.0  # the weight of the squared effects: equal to three more losses that show no effect
# Prior standard deviations in units of the standard deviation of the trials' losses: of the effect of one option, of a
# direction that blocks share (for one standard deviation of the children along it), and of the noise of a loss.
OWN, SHARED, NOISE = 0.15, 0.45, 0.6
SUPERNET = 0.25  # the expected weight of the supernet's predictions, likewise
LEAST_SPREAD = 1e-6  # of losses


class Evaluation(NamedTuple):
    """The cross-entropy of one child on the images of one ``group``; only losses of the same group are compared."""

    group: int
    loss: float
    choice: Choice


class Trial(NamedTuple):
    """The cross-entropy and top-1 accuracy of one child that was trained separately for a short time."""

    loss: float
    accuracy: float
    choice: Choice


class LossModel:
    """The effect of each option on the loss.

    Evaluations are fitted by ridge regression (Hoerl and Kennard, 1970) within groups. Trials are fitted by Bayesian
    linear regression. Its prior assumes that blocks are alike, so that few trials are enough: one more skipped block,
    or widths larger by one factor, have a similar effect in all blocks (`_directions`). The effects from evaluations
    are another such direction. Options inside a skipped block have no effect. ``spread``: the standard deviation of the
    predicted losses of the children that were evaluated or trained.

    Args:
        space: the space of the children.
        evaluations: at least one.
        trials: any number; fewer than two are not used.
    """

    def __init__(self, space: SearchSpace, evaluations: Sequence[Evaluation], trials: Sequence[Trial] = ()) -> None:
        self._space = space
        self._skips = {d: slot.skip for slot in space.slots for d in slot.inner if slot.skip is not None}
        self._sizes = [len(decision.options) for decision in space.decisions]
        evaluated, tried = [each.choice for each in evaluations], [trial.choice for trial in trials]
        features_MF, known_NF = self._all_features(evaluated), self._all_features(evaluated + tried)
        effects_F = _from_evaluations(features_MF, evaluations)
        if len(trials) > 1:
            directions_DF = np.stack([effects_F, *self._directions()])
            features_KF = self._all_features(tried)
            losses_K = np.array([trial.loss for trial in trials])
            effects_F = from_trials(features_KF, losses_K, directions_DF, (known_NF @ directions_DF.T).std(0))
        self.effects = tuple(np.split(effects_F, np.cumsum(self._sizes)[:-1]))
        self.spread = float((known_NF @ effects_F).std())

    def of(self, choice: Choice) -> float:
        """The predicted loss of one child, minus a constant that is the same for all children."""
        return float(self._features(choice) @ np.concatenate(self.effects))

    def _all_features(self, choices: Sequence[Choice]) -> np.ndarray:
        return np.stack([self._features(choice) for choice in choices])

    def _features(self, choice: Choice) -> np.ndarray:
        """A vector with a 1 for each active option."""
        parts = [np.zeros(size) for size in self._sizes]
        for decision, part in enumerate(parts):
            skip = self._skips.get(decision)
            if skip is None or not choice[skip]:
                part[choice[decision]] = 1.0
        return np.concatenate(parts)

    def _directions(self) -> list[np.ndarray]:
        """For each kind of decision, the effects of its options if all blocks were alike.

        The effects rise linearly with the logarithm of a size, or with the value of an on/off option.
        """
        by_kind: dict[str, list[np.ndarray]] = {}
        for number, decision in enumerate(self._space.decisions):
            options = np.array(decision.options, dtype=float)
            rising = np.log(options) if options.min() > 0 else options
            parts = by_kind.setdefault(decision.kind, [np.zeros(size) for size in self._sizes])
            parts[number] = rising - rising.mean()
        return [np.concatenate(parts) for parts in by_kind.values()]


def _from_evaluations(features_MF: np.ndarray, evaluations: Sequence[Evaluation]) -> np.ndarray:
    """The effects, by ridge regression within groups."""
    groups = [evaluation.group for evaluation in evaluations]
    within_MF = _within(groups, features_MF)
    losses_M1 = _within(groups, np.array([[evaluation.loss] for evaluation in evaluations]))
    normal_FF = within_MF.T @ within_MF + RIDGE * np.eye(within_MF.shape[1])
    effects_F: np.ndarray = np.linalg.solve(normal_FF, within_MF.T @ losses_M1)[:, 0]
    return effects_F


def from_trials(
    features_KF: np.ndarray, losses_K: np.ndarray, directions_DF: np.ndarray, spreads_D: np.ndarray
) -> np.ndarray:
    """The posterior mean of the effects (Rasmussen and Williams, 2006, equation 2.12, in the dual form).

    Args:
        features_KF: the features of the trained children.
        losses_K: their losses.
        directions_DF: effects that are likely to occur together; the first are those from the supernet.
        spreads_D: standard deviations of children along the directions.
    """
    spread = max(float(losses_K.std()), LEAST_SPREAD)
    unit_DF = directions_DF[spreads_D > LEAST_SPREAD] / spreads_D[spreads_D > LEAST_SPREAD, None]
    expected_F = SUPERNET * unit_DF[0] if spreads_D[0] > LEAST_SPREAD else np.zeros(features_KF.shape[1])
    covariance_FF = OWN**2 * np.eye(features_KF.shape[1]) + SHARED**2 * unit_DF.T @ unit_DF
    centred_KF = features_KF - features_KF.mean(0)
    surprise_K = (losses_K - losses_K.mean()) / spread - centred_KF @ expected_F
    covariance_KK = centred_KF @ covariance_FF @ centred_KF.T + NOISE**2 * np.eye(len(losses_K))
    effects_F: np.ndarray = expected_F + covariance_FF @ centred_KF.T @ np.linalg.solve(covariance_KK, surprise_K)
    return spread * effects_F


def _within(groups: Sequence[int], values_MF: np.ndarray) -> np.ndarray:
    """The values minus the mean of their group."""
    _, group_M = np.unique(groups, return_inverse=True)
    sums_GF = np.zeros((group_M.max() + 1, values_MF.shape[1]))
    np.add.at(sums_GF, group_M, values_MF)
    within: np.ndarray = values_MF - (sums_GF / np.bincount(group_M)[:, None])[group_M]
    return within
