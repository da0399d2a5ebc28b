"""Predicts latencies of blocks on a new device from another device's table and a few measured blocks.

The other table (the prior) shows how the latencies of block shapes compare; some tens of measured blocks show how the
new device differs. A non-negative linear model of multiply-adds, map sizes and the prior's latency is fitted to them.
If there are enough blocks, a Gaussian process learns the rest, as in `latency_tables.prediction.predictor`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

from latency_tables.prediction.gaussian_process import GaussianProcess
from latency_tables.prediction.predictor import MIN_BLOCKS, BlockPredictor, PredictedBlock, features, work
from latency_tables.table.rows import BlockAt

MIN_FITTED = 12  # measured blocks of a kind; with fewer, the prior's latencies are only scaled


class PriorLatencies:
    """The latencies of one kind of blocks on the prior's device: measured, or predicted from measured blocks.

    Args:
        measured: milliseconds of blocks of this kind in the prior table.
    """

    def __init__(self, measured: Mapping[BlockAt, float]) -> None:
        self.measured = measured
        self.predictor = BlockPredictor(list(measured), list(measured.values()))

    def of(self, blocks: Sequence[BlockAt]) -> np.ndarray:
        """The milliseconds of each block."""
        unknown = [block for block in blocks if block not in self.measured]
        predicted = self.predictor.predict(unknown) if unknown else []
        found = {block: predicted_block.ms for block, predicted_block in zip(unknown, predicted, strict=True)}
        return np.array([self.measured.get(block) or found[block] for block in blocks])


class LikePredictor:
    """Predicts blocks of one kind on the new device.

    Args:
        prior: the latencies of this kind on the prior's device.
        measured: the milliseconds of blocks of this kind on the new device.
        ratio: new / prior over all kinds, for a kind without measurements.
    """

    def __init__(self, prior: PriorLatencies, measured: Mapping[BlockAt, float], ratio: float) -> None:
        self.prior = prior
        self.process: GaussianProcess | None = None
        self.coefficients = np.array([])
        blocks, ms = list(measured), np.array(list(measured.values()))
        prior_ms = prior.of(blocks) if blocks else np.array([])
        self.ratio = float(np.median(ms / prior_ms)) if blocks else ratio
        if len(blocks) >= MIN_FITTED:
            design = self._design(blocks, prior_ms)
            self.coefficients, _ = nnls(design / ms[:, None], np.ones_like(ms))
        residuals = np.log(ms / self._base(blocks, prior_ms)) if blocks else np.array([0.0])
        self.spread = float(np.sqrt(np.mean(np.square(residuals))))
        if len(blocks) >= MIN_BLOCKS:
            self.process = GaussianProcess(self._seen(blocks, prior_ms), residuals)

    def predict(self, blocks: Sequence[BlockAt]) -> list[PredictedBlock]:
        """The latency and the spread of each block."""
        prior_ms = self.prior.of(blocks)
        base = self._base(blocks, prior_ms)
        if self.process is None:
            return [PredictedBlock(float(ms), self.spread) for ms in base]
        typical, spread = self.process.predict(self._seen(blocks, prior_ms))
        return [PredictedBlock(float(ms), float(s)) for ms, s in zip(np.exp(typical) * base, spread, strict=True)]

    def _design(self, blocks: Sequence[BlockAt], prior_ms: np.ndarray) -> np.ndarray:
        return np.concatenate([np.array([work(*block) for block in blocks]), prior_ms[:, None]], axis=1)

    def _base(self, blocks: Sequence[BlockAt], prior_ms: np.ndarray) -> np.ndarray:
        """The milliseconds before the correction by the process."""
        if not len(self.coefficients):
            return self.ratio * prior_ms
        base: np.ndarray = self._design(blocks, prior_ms) @ self.coefficients
        return base

    def _seen(self, blocks: Sequence[BlockAt], prior_ms: np.ndarray) -> np.ndarray:
        """What the process sees of each block (B, F): its shape, and the prior over the model of the work."""
        log_ratio = np.log(prior_ms / self._base(blocks, prior_ms))
        return np.concatenate([features(blocks), log_ratio[:, None]], 1)


def fit_like(prior: Mapping[BlockAt, float], measured: Mapping[BlockAt, float]) -> dict[str, LikePredictor]:
    """A predictor for each kind of block that the prior table measured.

    Args:
        prior: milliseconds of blocks in the prior table.
        measured: milliseconds on the new device; at least one block must also be measured in the prior table.
    """
    common = [measured[block] / prior[block] for block in measured if block in prior]
    if not common:
        return {}
    by_kind: dict[str, dict[BlockAt, float]] = defaultdict(dict)
    for block, ms in prior.items():
        by_kind[block[0].kind][block] = ms
    return {
        kind: LikePredictor(
            PriorLatencies(of_kind),
            {block: ms for block, ms in measured.items() if block[0].kind == kind},
            float(np.median(common)),
        )
        for kind, of_kind in by_kind.items()
    }
