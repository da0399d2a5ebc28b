"""The predictions of a latency table: blocks that were not measured, and whole networks from their blocks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version

import numpy as np

from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.costs.values import Correction
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from latency_tables.prediction.correction import (
    MIN_NETWORKS,
    MIN_NETWORKS_FOR_CONTEXT,
    Corrections,
    Part,
    WholeNetwork,
    fit_corrections,
)
from latency_tables.prediction.like import LikePredictor, fit_like
from latency_tables.prediction.predictor import MIN_BLOCKS, BlockPredictor, PredictedBlock, fit_predictors
from latency_tables.sources import source_digest
from latency_tables.table.rows import BlockAt, describe_subject
from latency_tables.table.table import LatencyTable

# The code that makes predictions: cost tensors from other versions of it are stale.
MAKES_PREDICTIONS = (
    "latency_tables/table/*.py",
    "latency_tables/prediction/*.py",
    "dmask_mobile/costs/*.py",
    "dmask_mobile/records/*.py",
)


MAX_RATIO = 10_000  # of a network's latency to the sum of its blocks, in both directions; it is near 1 on every device


class LatencyModel:
    """Predicts latencies from a table; satisfies `dmask_mobile.costs.latency.BlockLatencies`.

    Everything is fitted when it is first needed.

    Args:
        table: the measurements.
    """

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
        self._predicted: dict[BlockAt, PredictedBlock] = {}

    @property
    def prediction_digest(self) -> str:
        """A digest that identifies all predictions: of the table's content and the code that predicts from it."""
        code = source_digest(*MAKES_PREDICTIONS)
        made_of = [self.table.digest, code, *map(version, ("numpy", "scipy", "torch"))]
        return hashlib.sha256(" ".join(made_of).encode()).hexdigest()[:16]

    @cached_property
    def _measured(self) -> Mapping[BlockAt, float]:
        """The milliseconds of the measured blocks.

        A block that was disturbed in all its rounds is left out if enough others of its kind are known to predict it.
        """
        blocks = self.table.blocks
        steady = Counter(located[0].kind for located, summary in blocks.items() if not summary.doubtful)
        return {
            located: summary.typical_ms
            for located, summary in blocks.items()
            if not summary.doubtful or steady[located[0].kind] < MIN_BLOCKS
        }

    @cached_property
    def _predictors(self) -> Mapping[str, BlockPredictor | LikePredictor]:
        if self.table.prior:
            return fit_like(self.table.prior, self._measured)
        return fit_predictors(self._measured)

    def predict(self, blocks: Iterable[BlockAt]) -> None:
        """Predicts all blocks that were not measured together, because one by one would take far longer.

        Raises:
            DmaskError: if a block was not measured and its kind cannot be predicted.
        """
        by_kind: dict[str, list[BlockAt]] = defaultdict(list)
        for located in dict.fromkeys(blocks):
            if located not in self._measured and located not in self._predicted and located[0].kind != "skip":
                by_kind[located[0].kind].append(located)
        for kind, wanted in by_kind.items():
            if kind not in self._predictors:
                reason = f" ({self.table.failures[wanted[0]]})" if wanted[0] in self.table.failures else ""
                raise DmaskError(
                    f"no row for {describe_subject(wanted[0])} in '{self.table.source}'{reason}, nor enough of its kind"
                    " to predict it",
                    f"measure it: dmask profile SPACE --classes N -o {self.table.source}, or dmask profile --missing"
                    f" child.json --table {self.table.source}",
                )
            self._predicted |= zip(wanted, self._predictors[kind].predict(wanted), strict=True)

    def can_predict(self, kind: str) -> bool:
        """Whether enough blocks of a kind were measured to predict others."""
        return kind in self._predictors

    def spread_ms(self, blocks: Sequence[BlockAt]) -> list[float]:
        """One standard deviation of the prediction of each block in milliseconds; 0 for measured blocks."""
        self.predict(blocks)
        found = (self._predicted.get(located, PredictedBlock(0.0, 0.0)) for located in blocks)
        return [predicted.ms * predicted.spread for predicted in found]

    def is_measured(self, block: BlockSpec, in_size: int) -> bool:
        """Whether `raw_ms` is a measurement of this block."""
        return (block, in_size) in self._measured

    def raw_ms(self, block: BlockSpec, in_size: int) -> float:
        """The milliseconds of one block alone, measured or predicted.

        Raises:
            DmaskError: in the same cases as `predict`.
        """
        if block.kind == "skip":
            return 0.0
        if (block, in_size) in self._measured:
            return self._measured[block, in_size]
        self.predict([(block, in_size)])
        return self._predicted[block, in_size].ms

    def block_ms(self, block: BlockSpec, in_size: int) -> float:
        """The milliseconds that one block adds to a network: `raw_ms`, corrected for being measured alone.

        Raises:
            DmaskError: in the same cases as `predict`.
        """
        return self.corrections.context.of(self._part(block, in_size))

    @cached_property
    def corrections(self) -> Corrections:
        """The corrections of sums of blocks, fitted to the networks whose blocks are known."""
        return fit_corrections(self.whole_networks())

    def whole_networks(self) -> list[WholeNetwork]:
        """The measured networks whose blocks are known: measured, or predicted without having failed.

        Networks that were only measured while other programs ran are left out if enough others remain.

        Raises:
            DmaskError: if a network and the sum of its blocks are so different that one of them must be wrong.
        """

        def is_known(located: BlockAt) -> bool:
            kind = located[0].kind
            if kind == "skip" or located in self._measured:
                return True
            return located not in self.table.failures and self.can_predict(kind)  # fitting takes seconds

        networks = [child for child in self.table.networks if all(map(is_known, child.located_blocks()))]
        steady = [child for child in networks if not self.table.networks[child].doubtful]
        networks = steady if len(steady) >= MIN_NETWORKS_FOR_CONTEXT else networks
        self.predict(located for child in networks for located in child.located_blocks())
        found = [self.whole_network(child, self.table.networks[child].typical_ms) for child in networks]
        for child, network in zip(networks, found, strict=True):
            if not 1 / MAX_RATIO <= network.measured_ms / network.sum_ms <= MAX_RATIO:
                raise DmaskError(
                    f"'{self.table.source}': {describe_subject(child)} took {network.measured_ms:.3g} ms, its blocks"
                    f" alone {network.sum_ms:.3g} ms: one of them is wrong",
                    "remove those rows, or profile again",
                )
        return found

    def whole_network(self, child: ChildSpec, measured_ms: float) -> WholeNetwork:
        """The parts of a network, with its latency."""
        located = [(block, size) for block, size in child.located_blocks() if block.kind != "skip"]
        return WholeNetwork(child.resolution, tuple(self._part(block, size) for block, size in located), measured_ms)

    def _part(self, block: BlockSpec, in_size: int) -> Part:
        values = block.in_width * in_size**2 + block.out_width * block.out_size(in_size) ** 2
        return Part(self.raw_ms(block, in_size), values / 1e6, WeightBytes().block_cost(block, in_size) / 1e6)

    def correction(self, resolution: int) -> Correction:
        """The line from sums of blocks to whole networks at ``resolution`` pixels.

        It holds for the speed of the device at its last check.

        Raises:
            DmaskError: if fewer than three whole networks were measured.
        """
        if not np.isfinite(self.corrections.error):
            raise DmaskError(
                f"'{self.table.source}' holds {len(self.whole_networks())} whole networks to correct sums of blocks by,"
                f" at least {MIN_NETWORKS} are needed",
                f"finish it: dmask profile SPACE -o {self.table.source}",
            )
        line, scale = self.corrections.at(resolution), self.table.scale
        return Correction(scale * line.offset, scale * line.scale)

    def relative_spread(self) -> float:
        """The relative standard deviation of whole networks around their predictions by the other networks."""
        return self.corrections.spread
