"""The latency of a network: the sum of the latencies of its blocks, corrected by a line."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from dmask_mobile.costs.chain import BlockCosts, ChainCost, cost_shape, tabulate
from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.costs.values import Correction
from dmask_mobile.records.base import temporary_beside
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate
from dmask_mobile.records.space import SearchSpace

logger = logging.getLogger(__name__)


class BlockLatencies(Protocol):
    """The predictions that a latency cost needs, as made by `latency_tables.prediction.latency_model.LatencyModel`."""

    @property
    def prediction_digest(self) -> str:
        """A digest that identifies all predictions."""
        ...

    def predict(self, blocks: Iterable[tuple[BlockSpec, int]]) -> None:
        """Predicts many blocks at once, so that `block_ms` is fast for them.

        Raises:
            DmaskError: if a block was not measured and cannot be predicted.
        """
        ...

    def block_ms(self, block: BlockSpec, in_size: int) -> float:
        """Wall time that one block adds to a network, in milliseconds.

        Raises:
            DmaskError: if it was not measured and cannot be predicted.
        """
        ...

    def is_measured(self, block: BlockSpec, in_size: int) -> bool:
        """Whether the block itself was measured."""
        ...

    def correction(self, resolution: int) -> Correction:
        """The line that turns the sum over blocks into the latency of a whole network at ``resolution``."""
        ...

    def relative_spread(self) -> float:
        """One standard deviation of (measured / predicted) over whole networks; 0 if none was measured."""
        ...


class Latency(AdditiveCost):
    """Milliseconds of wall time on the device of a latency table, batch 1.

    Args:
        latencies: the predictions of a table.
        name: the name used in budgets.
        cache: a folder of the user that stores the cost tensors of whole spaces; without it none are stored. Its
            content is trusted, so it must not be a folder that receives files from others.
    """

    unit = "ms"

    def __init__(self, latencies: BlockLatencies, name: str = "latency", cache: Path | None = None) -> None:
        self.latencies = latencies
        self.name = name
        self.cache = cache

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """The milliseconds of one block; 0 for the identity."""
        return 0.0 if block.kind == "skip" else self.latencies.block_ms(block, in_size)

    def correction(self, resolution: int) -> Correction:
        """The table's line for whole networks."""
        return self.latencies.correction(resolution)

    def estimate(self, child: ChildSpec) -> CostEstimate:
        """The predicted latency, its spread, and the numbers of measured and of predicted blocks.

        Raises:
            DmaskError: if a block was not measured and cannot be predicted.
        """
        located = [(block, size) for block, size in child.located_blocks() if block.kind != "skip"]
        self.latencies.predict(located)
        estimate = super().estimate(child)
        num_measured = sum(self.latencies.is_measured(block, size) for block, size in located)
        return estimate.model_copy(
            update={
                "spread": estimate.value * self.latencies.relative_spread(),
                "num_measured": num_measured,
                "num_predicted": len(located) - num_measured,
            }
        )

    def on(self, space: SearchSpace) -> ChainCost:
        """The cost tensors of every block of ``space``, read from the cache if it contains them.

        Raises:
            DmaskError: if a block was not measured and cannot be predicted.
        """
        path = self.cache and self.cache / f"{self.latencies.prediction_digest}-{space.digest()}.npz"
        blocks = _read_tensors(path, space) if path else None
        if blocks is None:
            logger.debug("the cost tensors of %s for '%s' are computed", self.name, space.name)
            wanted: dict[tuple[BlockSpec, int], None] = {}
            tabulate(space, lambda block, in_size: float(wanted.setdefault((block, in_size)) or 0.0))
            self.latencies.predict(wanted)
            blocks = tabulate(space, self.block_cost)
            if path:
                _write_tensors(path, blocks)
        corrections = tuple(self.correction(resolution) for resolution in space.input.resolutions)
        return ChainCost(space, self.name, self.unit, corrections, blocks)


def _read_tensors(path: Path, space: SearchSpace) -> tuple[BlockCosts, ...] | None:
    """The cost tensors in ``path``; None if the file is absent, damaged or does not fit ``space``."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            values = [stored[f"arr_{number}"] for number in range(len(space.slots))]
    except (OSError, LookupError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):
        return None
    sound = all(
        found.dtype == np.float64 and found.shape == cost_shape(space, slot) and np.isfinite(found).all()
        for slot, found in zip(space.slots, values, strict=True)
    )
    if not sound:
        return None
    return tuple(BlockCosts(slot.decisions, found) for slot, found in zip(space.slots, values, strict=True))


def _write_tensors(path: Path, blocks: tuple[BlockCosts, ...]) -> None:
    with suppress(OSError):  # if the cache cannot be written, this takes seconds each time
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, *(block.values for block in blocks))
