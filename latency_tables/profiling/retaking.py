"""Measures a round again if other programs interrupted it."""

from __future__ import annotations

from collections.abc import Callable

from latency_tables.devices.device import Samples
from latency_tables.table.statistics import RoundTime, round_time, usual_share

RETAKES = 2  # of one round
MAX_FUTILE = 6  # consecutive rounds that stayed interrupted; then the core is never free, and repeating only takes time


class Retaking:
    """Measures rounds on one device."""

    def __init__(self) -> None:
        self._usual: float | None = None  # the share of CPU time of the quietest run so far
        self._futile = 0

    def sample(self, take: Callable[[], Samples]) -> Samples:
        """A round; if it was interrupted, the quietest of at most three."""
        samples = take()
        found = self._time(samples)
        for _ in range(RETAKES if self._futile < MAX_FUTILE else 0):
            if not found.interrupted:
                break
            samples = take()
            found = self._time(samples)
        self._futile = self._futile + 1 if found.interrupted else 0
        return samples

    def _time(self, samples: Samples) -> RoundTime:
        share = usual_share([(samples.wall_ms, samples.cpu_ms)])
        if share is not None:
            self._usual = max(share, self._usual or 0.0)
        return round_time(samples.wall_ms, samples.cpu_ms, self._usual)
