"""`Entry`: a network of a contender with its latency and its trainings, and the arrays that statistics are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dmask_mobile.records.base import Record
from search_quality.bench import Network

Split = Literal["val", "test"]


class Training(Record):
    """One training from scratch; accuracies in 0..1, ``test`` where the test split was opened."""

    seed: int
    val: float
    cpu_seconds: float
    test: float | None = None


class Entry(Record):
    """A network of a contender.

    ``key``: which one: the search's seed, the way of scaling; ``ratio``: its measured latency as a share of the median
    of the random children, in the session that measured all networks; ``macs``: None for networks of timm.
    """

    contender: str
    key: str
    network: Network
    resolution: int
    macs: float | None
    ms: float
    ratio: float
    trainings: tuple[Training, ...]

    def accuracies(self, split: Split) -> list[float]:
        """Of each training."""
        return [training.val if split == "val" else training.test or 0.0 for training in self.trainings]


def is_opened(entries: Sequence[Entry]) -> bool:
    """Whether every network was tested."""
    return all(training.test is not None for entry in entries for training in entry.trainings)


def accuracies_of(entries: Sequence[Entry], contender: str, split: Split) -> np.ndarray:
    """The accuracies (networks, trainings) of a contender; (0, 0) where it has none.

    Of the networks that are scaled uniformly, the one that is the best on the validation images after its first
    training is taken.
    """
    own = [entry for entry in entries if entry.contender == contender]
    if contender == "uniform" and own:
        own = [best_scaled(own)]
    return np.array([entry.accuracies(split) for entry in own]) if own else np.empty((0, 0))


def best_scaled(entries: Sequence[Entry]) -> Entry:
    """The network that is the best on the validation images after its first training."""
    return max(entries, key=lambda entry: entry.trainings[0].val)
