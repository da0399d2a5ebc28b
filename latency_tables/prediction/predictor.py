"""Predicts the latencies of blocks that were not measured from measured blocks.

A non-negative linear model of multiply-adds and sizes of feature maps gives the scale. Extremely randomized trees
(Geurts et al., 2006) learn the logarithm of the ratio of measured latency and scale, which depends on how well a shape
fits the runtime's kernels. The spread of a prediction is the disagreement of the trees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from dmask_mobile.costs.counts import block_layers
from dmask_mobile.records.block import BlockSpec
from latency_tables.table.rows import BlockAt

NUM_TREES, MIN_BLOCKS = 200, 30


class PredictedBlock(NamedTuple):
    """Predicted milliseconds and the relative standard deviation of them."""

    ms: float
    spread: float


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


def features(block: BlockSpec, in_size: int) -> list[float]:
    """What the trees see: shapes, their logarithms, how they fill vectors of 8 and 16 values."""
    widths = (block.in_width, block.hidden_width, block.out_width)
    return [
        *widths,
        *(width % 8 for width in widths),
        *(width % 16 for width in widths),
        block.kernel,
        block.stride,
        block.se_width,
        block.activation == "hswish",
        block.residual,
        in_size,
        block.out_size(in_size),
        block.hidden_width / block.in_width,
        *np.log(np.array(work(block, in_size)) + 1e-6),
    ]


def further_features(block: BlockSpec) -> list[float]:
    """What imported networks vary; the trees see those of them that vary among the measured blocks."""
    return [
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
    """

    def __init__(self, blocks: Sequence[BlockAt], measured_ms: Sequence[float]) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        measured = np.asarray(measured_ms, float)
        design = np.array([work(*block) for block in blocks])
        self.coefficients, _ = nnls(design / measured[:, None], np.ones_like(measured))
        targets = np.log(measured / (design @ self.coefficients))
        self.trees: Any = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=2, max_features=0.5, random_state=0)
        further = np.array([further_features(block) for block, _ in blocks], np.float32)
        self.varying = np.flatnonzero(np.ptp(further, axis=0))
        self.trees.fit(self._seen(blocks), targets)

    def predict(self, blocks: Sequence[BlockAt]) -> list[PredictedBlock]:
        """Latency and spread of each block."""
        base = np.array([work(*block) for block in blocks]) @ self.coefficients
        seen = self._seen(blocks)
        by_tree = np.stack([tree.predict(seen) for tree in self.trees.estimators_])
        typical, spread = np.exp(by_tree.mean(0)) * base, by_tree.std(0)
        return [PredictedBlock(float(ms), float(s)) for ms, s in zip(typical, spread, strict=True)]

    def _seen(self, blocks: Sequence[BlockAt]) -> np.ndarray:
        """The features of each block (B, F)."""
        further = np.array([further_features(block) for block, _ in blocks], np.float32)[:, self.varying]
        return np.concatenate([np.array([features(*block) for block in blocks], np.float32), further], axis=1)


def fit_predictors(measured: dict[BlockAt, float]) -> dict[str, BlockPredictor]:
    """A predictor for each kind of block of which enough were measured."""
    by_kind: dict[str, list[BlockAt]] = defaultdict(list)
    for located in measured:
        by_kind[located[0].kind].append(located)
    return {
        kind: BlockPredictor(blocks, [measured[block] for block in blocks])
        for kind, blocks in by_kind.items()
        if len(blocks) >= MIN_BLOCKS
    }
