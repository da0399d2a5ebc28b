"""Latency of a network as the sum of its blocks' measured latencies, corrected by a line."""

from __future__ import annotations

from typing import Protocol

from dmask_mobile.costs.model import AdditiveCost, Correction
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate


class BlockLatencies(Protocol):
    """What a latency cost needs of a table; `latency_tables.table.LatencyTable` satisfies it."""

    def block_ms(self, block: BlockSpec, in_size: int) -> float:
        """Wall time of one block in milliseconds.

        Raises:
            DmaskError: when the table has no row for it.
        """
        ...

    def correction(self, resolution: int) -> Correction:
        """What turns the sum over blocks into the latency of a whole network at ``resolution``."""
        ...

    def relative_spread(self) -> float:
        """One standard deviation of (measured / predicted) over whole networks; 0 when none was measured."""
        ...


class Latency(AdditiveCost):
    """Milliseconds of wall time on the device of a latency table, batch 1."""

    unit = "ms"

    def __init__(self, table: BlockLatencies, name: str = "latency") -> None:
        self.table = table
        self.name = name

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        """Milliseconds of one block; the identity costs nothing."""
        return 0.0 if block.kind == "skip" else self.table.block_ms(block, in_size)

    def correction(self, resolution: int) -> Correction:
        """The table's line for whole networks."""
        return self.table.correction(resolution)

    def estimate(self, child: ChildSpec) -> CostEstimate:
        """The predicted latency with the spread that the table's whole networks showed."""
        estimate = super().estimate(child)
        return estimate.model_copy(update={"spread": estimate.value * self.table.relative_spread()})
