"""Numbers derived from raw samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
    """Typical milliseconds and the relative noise of them."""

    typical_ms: float
    noise: float


def summarize(rounds: Sequence[Sequence[float]], drift: Sequence[float] | None = None) -> Summary:
    """Median of the rounds' medians, and half the range of those as a share of it.

    Rounds lie apart in time, so their range shows drift, which the samples of one round cannot.

    Args:
        rounds: the samples of each round, in milliseconds.
        drift: how slow the machine was in each round, relative to its usual self (default: 1 throughout).
    """
    medians = np.array([np.median(samples) for samples in rounds]) / (1.0 if drift is None else np.asarray(drift))
    typical = float(np.median(medians))
    return Summary(typical, float((medians.max() - medians.min()) / 2 / typical))


def smooth(values: Sequence[float]) -> np.ndarray:
    """Running median over three neighbours: one disturbed value says nothing about its time."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    smoothed: np.ndarray = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return smoothed
