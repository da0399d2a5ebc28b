"""A linear model of what each option adds to a child's cross-entropy.

It plays the same role for the loss as a cost tensor for a cost. It is fitted to two kinds of observations: many losses
of children with supernet weights, and a few losses of children that were trained separately for a short time
(`trials`). Trials have priority: in shared weights that were trained no longer than a child, widths and depths make
hardly any difference (docs/search_quality.md has the figures).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.features import Features, capacity_of, ridge_regression

RIDGE = 3.0  # the weight of the squared effects: equal to three more losses that show no effect
# Prior standard deviations in units of the standard deviation of the trials' losses: of the effect of one option, of a
# direction that blocks share (for one standard deviation of the children along it), of what is particular to one child,
# and of the noise of a loss.
OWN, SHARED, PARTICULAR, NOISE = 0.15, 0.45, 0.3, 0.3
SUPERNET = 0.25  # the expected weight of the supernet's predictions, likewise
# What a whole training gains and a short one does not show, likewise: by a resolution that is twice as large, and by
# blocks with e times as many multiply-adds in the mean. Measured on three data sets (docs/search_quality.md).
RESOLUTION, CAPACITY = 1.0, 2.0
LEAST_SPREAD = 1e-6  # of losses
# Trials whose losses are as high as that of guessing, the logarithm of the number of classes, differ by chance. They
# count in full if their mean loss is this share below it or lower, and the less, the nearer to it they are.
LEARNED, LEAST_WEIGHT = 0.05, 0.05


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


class Effects(NamedTuple):
    """What each option of each decision adds to the loss; 0 for the options inside a skipped block.

    ``spread``: the standard deviation of the losses that they predict for the children that were evaluated or trained.
    """

    of_options: tuple[np.ndarray, ...]
    spread: float


class LossModel:
    """The effect of each option on the loss.

    Evaluations are fitted by ridge regression within groups. Trials are fitted by Bayesian
    linear regression. Its prior assumes that blocks are alike, so that few trials are enough: one more skipped block,
    or widths larger by one factor, have a similar effect in all blocks (`_directions`). The effects from evaluations
    are another such direction. Options inside a skipped block have no effect.

    Losses are predicted as they would be after whole trainings: short ones underrate large resolutions and blocks with
    many multiply-adds, which learn more slowly and end better (`RESOLUTION`, `CAPACITY`).

    ``expected``: the effects by all observations. ``best_trial``: the trained child with the lowest expected loss, by
    its own loss and by those of the others, and this loss as in `of`; None with fewer than two trials.

    Args:
        space: the space of the children.
        evaluations: at least one.
        trials: any number; fewer than two are not used.
    """

    def __init__(self, space: SearchSpace, evaluations: Sequence[Evaluation], trials: Sequence[Trial] = ()) -> None:
        self._features = Features(space)
        evaluated, tried = [each.choice for each in evaluations], [trial.choice for trial in trials]
        features_MF, self._known_NF = self._all_features(evaluated), self._all_features(evaluated + tried)
        effects_F = _from_evaluations(features_MF, evaluations)
        directions_DF = np.stack([effects_F, *self._directions()])
        self._trials = FromTrials(directions_DF, (self._known_NF @ directions_DF.T).std(0))
        self.best_trial: tuple[Choice, float] | None = None
        if len(trials) > 1:
            features_KF = self._all_features(tried)
            losses_K = np.array([trial.loss for trial in trials])
            self._trials.fit(features_KF, losses_K, weight_of_trials(float(losses_K.mean()), space.classes))
            effects_F, particular_K = self._trials.expected()
            effects_F = effects_F + self._whole_training()
            expected_K = features_KF @ effects_F + particular_K
            self.best_trial = tried[int(expected_K.argmin())], float(expected_K.min())
        self.expected = self._effects(effects_F)

    def drawn(self, generator: np.random.Generator) -> Effects:
        """Effects that are likely by the trials; they vary along the directions that blocks share."""
        return self._effects(self._trials.drawn(generator) + self._whole_training())

    def corners(self, generator: np.random.Generator, count: int) -> list[Effects]:
        """Pairs of opposite effects that point along all directions that blocks share, each by one spread.

        The best option inside a block has no effect, so that it does not matter to the number of blocks.
        """
        unit_DF = self._trials.unit_DF
        signs = [generator.choice([-1.0, 1.0], len(unit_DF)) for _ in range(count // 2)]
        found = [self._effects(sign * each @ unit_DF) for each in signs for sign in (1.0, -1.0)]
        return [
            effects._replace(
                of_options=tuple(
                    e - e.min() if d in self._features.skips else e for d, e in enumerate(effects.of_options)
                )
            )
            for effects in found
        ]

    def most_informative(self, candidates: Sequence[Choice], known: Sequence[Choice]) -> Choice:
        """The candidate whose loss, beside those of ``known``, tells the most about the directions that blocks share.

        The directions are equally important, whatever their spread among the candidates is.
        """
        along_KD = self._all_features([*candidates, *known]) @ self._trials.unit_DF.T
        along_KD /= np.maximum(along_KD[: len(candidates)].std(0), LEAST_SPREAD)
        known_ND = along_KD[len(candidates) :]
        gains = [information(np.vstack([known_ND, along_D])) for along_D in along_KD[: len(candidates)]]
        return candidates[int(np.argmax(gains))]

    def of(self, choice: Choice) -> float:
        """The predicted loss of one child, minus a constant that is the same for all children."""
        return float(self._features.of(choice) @ np.concatenate(self.expected.of_options))

    def _whole_training(self) -> np.ndarray:
        """What a whole training adds to the effects on the loss of a short one."""
        added_F: np.ndarray = -self._trials.scale * gains_of_whole_trainings(self._features)
        return added_F

    def _effects(self, effects_F: np.ndarray) -> Effects:
        spread = float((self._known_NF @ effects_F).std())
        return Effects(self._features.split(effects_F), max(spread, LEAST_SPREAD))

    def _all_features(self, choices: Sequence[Choice]) -> np.ndarray:
        return np.stack([self._features.of(choice) for choice in choices])

    def _directions(self) -> list[np.ndarray]:
        """The directions that blocks share, one for each kind of decision.

        Each resolution is a direction of its own: it is one decision for all blocks, and the best one often lies
        between the others.
        """
        space = self._features.space
        options: dict[str, Sequence[int | None]] = {decision.kind: [None] for decision in space.decisions}
        options["resolution"] = range(len(space.input.resolutions))
        return [self._features.alike(kind, option) for kind, only in options.items() for option in only]


def weight_of_trials(mean_loss: float, classes: int) -> float:
    """How much differences between trials count, up to 1: little if their mean loss is about that of guessing."""
    learned = 1 - mean_loss / math.log(classes)
    return min(1.0, max(LEAST_WEIGHT, learned / LEARNED))


def gains_of_whole_trainings(features: Features) -> np.ndarray:
    """What each option (F,) gains in a whole training over a short one, in standard deviations of trials' losses."""
    resolution_F = features.alike("resolution") / np.log(2)
    gains_F: np.ndarray = RESOLUTION * resolution_F + CAPACITY * capacity_of(features.space)
    return gains_F


def _from_evaluations(features_MF: np.ndarray, evaluations: Sequence[Evaluation]) -> np.ndarray:
    """The effects, by ridge regression within groups."""
    groups = [evaluation.group for evaluation in evaluations]
    within_MF = _within(groups, features_MF)
    losses_M1 = _within(groups, np.array([[evaluation.loss] for evaluation in evaluations]))
    return ridge_regression(within_MF, losses_M1[:, 0], RIDGE)


class FromTrials:
    """The normal distribution of the effects on the losses of trials (Rasmussen and Williams, 2006, section 2.1).

    Args:
        directions_DF: effects that are likely to occur together; the first are those from the supernet.
        spreads_D: standard deviations of children along the directions.

    ``scale``: the standard deviation that the trials' losses would have if they counted in full; 1 without trials.
    """

    def __init__(self, directions_DF: np.ndarray, spreads_D: np.ndarray) -> None:
        vary = spreads_D > LEAST_SPREAD
        self.unit_DF = directions_DF[vary] / spreads_D[vary, None]
        features = directions_DF.shape[1]
        self._expected_F = SUPERNET * self.unit_DF[0] if vary[0] else np.zeros(features)
        self._covariance_FF = OWN**2 * np.eye(features) + SHARED**2 * self.unit_DF.T @ self.unit_DF
        self.scale = 1.0
        self._centred_KF, self._losses_K = np.zeros((0, features)), np.zeros(0)

    def fit(self, features_KF: np.ndarray, losses_K: np.ndarray, weight: float) -> None:
        """Takes the losses of trained children into account; ``weight``: see `weight_of_trials`."""
        self.scale = max(float(losses_K.std()), LEAST_SPREAD) / weight
        self._centred_KF = features_KF - features_KF.mean(0)
        self._losses_K = (losses_K - losses_K.mean()) / self.scale

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """The posterior means of the effects, and of what is particular to each trained child (equation 2.12)."""
        weights_K = self._weights(self._losses_K - self._centred_KF @ self._expected_F)
        effects_F = self._expected_F + self._covariance_FF @ self._centred_KF.T @ weights_K
        return self.scale * effects_F, self.scale * PARTICULAR**2 * weights_K

    def drawn(self, generator: np.random.Generator) -> np.ndarray:
        """A draw from the posterior along the directions; the effects of single options stay at their expected values.

        A draw from the prior is corrected by the losses that it does not explain (Matheron's rule).
        """
        prior_F = self._expected_F + SHARED * generator.standard_normal(len(self.unit_DF)) @ self.unit_DF
        noise_K = np.hypot(PARTICULAR, NOISE) * generator.standard_normal(len(self._losses_K))
        weights_K = self._weights(self._losses_K - self._centred_KF @ prior_F - noise_K)
        drawn_F: np.ndarray = self.scale * (prior_F + self._covariance_FF @ self._centred_KF.T @ weights_K)
        return drawn_F

    def _weights(self, surprise_K: np.ndarray) -> np.ndarray:
        covariance_KK = self._centred_KF @ self._covariance_FF @ self._centred_KF.T + _unexplained(len(surprise_K))
        weights_K: np.ndarray = np.linalg.solve(covariance_KK, surprise_K)
        return weights_K


def information(along_KD: np.ndarray) -> float:
    """The logarithm of the determinant of the covariance of the losses of children, by their places along directions.

    The mean loss is as unknown as the loss of one child.
    """
    covariance_KK = SHARED**2 * along_KD @ along_KD.T + 1.0 + _unexplained(len(along_KD))
    return float(np.linalg.slogdet(covariance_KK)[1])


def _unexplained(count: int) -> np.ndarray:
    """The covariance of what effects cannot explain in the losses of ``count`` trials."""
    unexplained_KK: np.ndarray = (PARTICULAR**2 + NOISE**2) * np.eye(count)
    return unexplained_KK


def _within(groups: Sequence[int], values_MF: np.ndarray) -> np.ndarray:
    """The values minus the mean of their group."""
    _, group_M = np.unique(groups, return_inverse=True)
    sums_GF = np.zeros((group_M.max() + 1, values_MF.shape[1]))
    np.add.at(sums_GF, group_M, values_MF)
    within: np.ndarray = values_MF - (sums_GF / np.bincount(group_M)[:, None])[group_M]
    return within
