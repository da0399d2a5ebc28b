"""How long and how thoroughly to measure."""

from __future__ import annotations

from pydantic import Field

from dmask_mobile.records.base import Record

MAX_MINUTES = 7 * 24 * 60.0
MAX_ROUNDS = 1000


class ProfileSettings(Record):
    """How long and how thoroughly to measure.

    ``minutes`` counts all runs for one table. The rounds of a block are spread over time, so that a disturbance affects
    one round of many blocks. ``retry_failures``: try again to measure what failed in an earlier run.
    ``metric_networks``: the number of whole networks whose memory and energy are measured after everything else, beyond
    ``minutes``; each takes as long as starting the runtime.
    """

    minutes: float | None = Field(default=6.0, gt=0, le=MAX_MINUTES)
    target_error: float | None = Field(default=None, gt=0, lt=1)
    rounds: int = Field(default=3, ge=1, le=MAX_ROUNDS)
    network_rounds: int = Field(default=4, ge=1, le=MAX_ROUNDS)
    batch_blocks: int = Field(default=150, ge=1, le=10_000)
    seconds_per_block: float = Field(default=0.015, gt=0, le=60)
    seconds_per_network: float = Field(default=0.1, gt=0, le=60)
    retry_failures: bool = False
    metric_networks: int = Field(default=10, ge=0, le=1_000)
