"""Children as vectors of options, and effects of all options that follow from what options are."""

from __future__ import annotations

import functools
import math
import random

import numpy as np

from dmask_mobile.costs.counts import Macs
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

RANDOM_CHILDREN = 2000
RIDGE = 1.0  # the weight of the squared effects, in children


class Features:
    """The vectors (F,) of a space: one element for each option of each decision, in their order."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.sizes = [len(decision.options) for decision in space.decisions]
        self.skips = {d: slot.skip for slot in space.slots for d in slot.inner if slot.skip is not None}

    def of(self, choice: Choice) -> np.ndarray:
        """A child: 1 for each option that it has; none inside a skipped block."""
        parts = [np.zeros(size) for size in self.sizes]
        for decision, part in enumerate(parts):
            skip = self.skips.get(decision)
            if skip is None or not choice[skip]:
                part[choice[decision]] = 1.0
        return np.concatenate(parts)

    def split(self, effects_F: np.ndarray) -> tuple[np.ndarray, ...]:
        """The effects by decision."""
        return tuple(np.split(effects_F, np.cumsum(self.sizes)[:-1]))

    def alike(self, kind: str, only: int | None = None) -> np.ndarray:
        """The effects if all blocks were alike, and only decisions of this kind (or one of its options) had an effect.

        They rise linearly with the logarithm of a size, or with the value of an on/off option.
        """
        parts = [np.zeros(size) for size in self.sizes]
        for decision, part in zip(self.space.decisions, parts, strict=True):
            if decision.kind == kind:
                options = np.array(decision.options, dtype=float)
                rising = np.log(options) if options.min() > 0 else options
                effects = rising if only is None else np.eye(len(options))[only]
                part += effects - effects.mean()
        return np.concatenate(parts)


def ridge_regression(features_NF: np.ndarray, values_N: np.ndarray, weight: float) -> np.ndarray:
    """The effects (F,) on centred values (Hoerl and Kennard, 1970); ``weight``: of the squared effects."""
    normal_FF = features_NF.T @ features_NF + weight * np.eye(features_NF.shape[1])
    effects_F: np.ndarray = np.linalg.solve(normal_FF, features_NF.T @ values_N)
    return effects_F


@functools.lru_cache(maxsize=8)
def capacity_of(space: SearchSpace) -> np.ndarray:
    """The effects (F,) on the logarithm of the mean multiply-adds of a block: the linear model of random children."""
    features, macs, generator = Features(space), Macs().on(space), random.Random(0)
    choices = [space.sample(generator) for _ in range(RANDOM_CHILDREN)]
    blocks = [sum(1 for slot in space.slots if slot.skip is None or not choice[slot.skip]) for choice in choices]
    log_N = np.array([math.log(macs.cost(choice) / count) for choice, count in zip(choices, blocks, strict=True)])
    features_NF = np.stack([features.of(choice) for choice in choices])
    effects_F = ridge_regression(features_NF - features_NF.mean(0), log_N - log_N.mean(), RIDGE)
    effects_F.flags.writeable = False  # shared by all callers
    return effects_F
