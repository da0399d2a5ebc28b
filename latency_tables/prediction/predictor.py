"""Predicts the latencies of blocks that were not measured from measured blocks.

A non-negative linear model of multiply-adds and sizes of feature maps gives the scale. A Gaussian process learns the
logarithm of the ratio of measured latency and scale, which depends on how well a shape fits the runtime's kernels. The
spread of a prediction is the deviation of that process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import nnls

from dmask_mobile.costs.counts import block_layers
from dmask_mobile.records.block import BlockSpec
from latency_tables.prediction.gaussian_process import GaussianProcess
from latency_tables.table.rows import BlockAt

MIN_BLOCKS = 30


class PredictedBlock(NamedTuple):
    """Predicted milliseconds and the relative standard deviation of them."""

    ms: float
    spread: float


class Regression(Protocol):
    """Learned from features (N, F) and targets (N,)."""

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,) at features (M, F)."""
        ...


def work(block: BlockSpec, in_size: int) -> list[float]:
    """What the non-negative model adds up: a constant, millions of multiply-adds by layer, values moved."""
    out_size = block.out_size(in_size)
    dense, depthwise, squeeze = _macs_by_layer(block, in_size)
    maps = (block.in_width * in_size**2, block.hidden_width * in_size**2, block.hidden_width * out_size**2)
    moved = [value / 1e6 for value in (*maps, block.out_width * out_size**2)]
    return [1.0, dense, depthwise, squeeze, *moved, squeeze and moved[2]]


def _macs_by_layer(block: BlockSpec, in_size: int) -> tuple[float, float, float]:
    """Millions of multiply-adds of dense, depthwise and squeeze-excite's convolutions."""
    layers = block_layers(block, in_size)
    squeeze = layers[-3:-1] if block.se_width else ()
    others = layers[:-3] + layers[-1:] if block.se_width else layers
    dense, depthwise = ([layer.macs / 1e6 for layer in others if (layer.groups > 1) == grouped] for grouped in (0, 1))
    return sum(dense), sum(depthwise), sum(layer.macs / 1e6 for layer in squeeze)


def features(blocks: Sequence[BlockAt]) -> np.ndarray:
    """What the Gaussian process sees of each block (B, F)."""
    return np.array([_features(*block) for block in blocks])


def _features(block: BlockSpec, in_size: int) -> list[float]:
    """Logarithms of work and shapes, what kernels depend on, and what imported networks vary."""
    widths = (block.in_width, block.hidden_width, block.out_width)
    return [
        *np.log(np.array(work(block, in_size)) + 1e-4),
        *np.log(np.maximum(1, (*widths, in_size))),
        *(width % 8 > 0 for width in widths),
        *(width % 16 > 0 for width in widths),
        block.kernel,
        block.stride,
        block.se_width > 0,
        block.residual,
        block.activation == "hswish",
        block.activation == "relu6",
        block.activation == "silu",
        block.expand,
        block.depthwise,
        block.start_kernel,
        block.padding == "same",
    ]


class BlockPredictor:
    """Predicts blocks of one kind from at least 30 measured ones.

    Args:
        blocks: measured blocks.
        measured_ms: their latencies.
        regression: what learns how they differ from the linear model.
    """

    def __init__(
        self,
        blocks: Sequence[BlockAt],
        measured_ms: Sequence[float],
        regression: Callable[[np.ndarray, np.ndarray], Regression] = GaussianProcess,
    ) -> None:
        measured = np.asarray(measured_ms, float)
        design = np.array([work(*block) for block in blocks])
        self.coefficients, _ = nnls(design / measured[:, None], np.ones_like(measured))
        self.regression = regression(features(blocks), np.log(measured / (design @ self.coefficients)))

    def predict(self, blocks: Sequence[BlockAt]) -> list[PredictedBlock]:
        """Latency and spread of each block."""
        base = np.array([work(*block) for block in blocks]) @ self.coefficients
        typical, spread = self.regression.predict(features(blocks))
        return [PredictedBlock(float(ms), float(s)) for ms, s in zip(np.exp(typical) * base, spread, strict=True)]


def fit_predictors(measured: Mapping[BlockAt, float]) -> dict[str, BlockPredictor]:
    """A predictor for each kind of block of which enough were measured."""
    by_kind: dict[str, list[BlockAt]] = defaultdict(list)
    for located in measured:
        by_kind[located[0].kind].append(located)
    return {
        kind: BlockPredictor(blocks, [measured[block] for block in blocks])
        for kind, blocks in by_kind.items()
        if len(blocks) >= MIN_BLOCKS
    }
