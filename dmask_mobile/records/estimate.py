"""`Estimate`: how long a search or a training would take, and how much memory it would need."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from dmask_mobile.records.base import Record


class StepEstimate(Record):
    """One kind of step: how many there are, and the measured seconds of one."""

    kind: str
    num_steps: NonNegativeInt
    seconds_per_step: NonNegativeFloat


class Estimate(Record):
    """An extrapolation from two steps of each kind. ``peak_memory_bytes``: of this process, or of its accelerator."""

    device: str
    num_processes: PositiveInt
    steps: tuple[StepEstimate, ...]
    peak_memory_bytes: NonNegativeInt

    @property
    def seconds(self) -> float:
        """The estimated duration of the whole."""
        return sum(step.num_steps * step.seconds_per_step for step in self.steps)
