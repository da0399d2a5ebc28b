"""Numbers derived from raw samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.model import Correction


class Summary(NamedTuple):
    """Typical milliseconds and the relative noise of them."""

    typical_ms: float
    noise: float


def summarize(rounds: Sequence[Sequence[float]]) -> Summary:
    """Median of the rounds' medians, and half the range of those as a share of it.

    Rounds lie apart in time, so their range shows drift, which the samples of one round cannot.
    """
    medians = np.array([np.median(samples) for samples in rounds])
    typical = float(np.median(medians))
    return Summary(typical, float((medians.max() - medians.min()) / 2 / typical))


class LineFit(NamedTuple):
    """A correction and the relative standard deviation that remains."""

    correction: Correction
    spread: float


def fit_line(sums: Sequence[float], measured: Sequence[float]) -> LineFit:
    """The rising line from sums of blocks to whole networks with the least squared *relative* error.

    A line that does not rise (too few or too similar networks) gives way to the median ratio.
    """
    x, y = np.asarray(sums, float), np.asarray(measured, float)
    correction = Correction(0.0, float(np.median(y / x)))
    if len(x) > 2 and np.ptp(x) > 0:
        design = np.stack([np.ones_like(x), x], 1) / y[:, None]
        offset, scale = np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0]
        if scale > 0:
            correction = Correction(float(offset), float(scale))
    residuals = (correction.offset + correction.scale * x) / y - 1
    return LineFit(correction, float(np.sqrt((residuals**2).sum() / max(1, len(x) - 2))))
