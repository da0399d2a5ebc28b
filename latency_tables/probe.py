"""Predicting with a table and measuring on its device: what a verification of latency needs."""

from __future__ import annotations

from pathlib import Path

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate
from export.verify import MAX_DRIFT, UNSTABLE_NOISE, MeasuredLatency
from latency_tables.profile import ProfileSettings, remeasure
from latency_tables.setup import Setup, setup_of
from latency_tables.statistics import summarize
from latency_tables.table import LatencyTable, median_drift

ROUNDS, ATTEMPTS = 7, 3
SECONDS_PER_NETWORK = ProfileSettings().seconds_per_network
FORMAT_OF_RUNTIME = {"onnxruntime": "onnx"}


class TableProbe:
    """`export.verify.LatencyProbe` for the device at hand, which must be the table's.

    Raises:
        DmaskError: when the table was measured on another device, runtime version or setting.
    """

    def __init__(self, table: LatencyTable, progress: Progress = silent) -> None:
        self.table = table
        self.setup = setup_of(table)
        self.progress = progress
        self.model_format = FORMAT_OF_RUNTIME[table.head.runtime]

    def predict(self, child: ChildSpec) -> CostEstimate:
        """The table's prediction."""
        return Latency(self.table).estimate(child)

    def measure(self, path: Path) -> MeasuredLatency:
        """The artifact now, in rounds that alternate with the table's sentinels.

        A noisy measurement is made again, at most three times: noise says nothing about the latency itself.
        """
        for _ in range(ATTEMPTS):
            taken = measure_with_sentinels(self.table, self.setup, {"artifact": path.read_bytes()}, self.progress)
            summary = summarize(taken["artifact"])
            measured = MeasuredLatency(summary.typical_ms, summary.noise, drift_of(self.table, taken))
            if measured.noise <= UNSTABLE_NOISE:
                break
        return measured


def measure_with_sentinels(
    table: LatencyTable, setup: Setup, models: dict[str, bytes], progress: Progress = silent, rounds: int = ROUNDS
) -> dict[str, list[tuple[float, ...]]]:
    """Rounds of ``models`` and, as ``sentinel0`` and so on, of the table's sentinels."""
    sentinels = {f"sentinel{number}": setup.convert(child) for number, child in enumerate(reference_networks(table))}
    taken = remeasure({**models, **sentinels}, setup, rounds, SECONDS_PER_NETWORK, progress)
    return {key: [tuple(samples) for samples in rounds] for key, rounds in taken.items()}


def reference_networks(table: LatencyTable) -> tuple[ChildSpec, ...]:
    """The networks that drift is told by: the sentinels, or the first networks of a table without any."""
    return tuple(table.sentinels) or tuple(table.networks)[:3]


def drift_of(table: LatencyTable, taken: dict[str, list[tuple[float, ...]]]) -> float:
    """How much slower the device is now than when the table was made; 0 for a table without whole networks."""
    then = table.sentinels or table.networks
    references = reference_networks(table)
    if not references:
        return 0.0
    now_ms = [summarize(taken[f"sentinel{number}"]).typical_ms for number in range(len(references))]
    return median_drift(now_ms, [then[child] for child in references])


def check_drift(table: LatencyTable, progress: Progress = silent) -> float:
    """Measures the table's sentinels now; returns the drift.

    Raises:
        DmaskError: when the device is another one, or has become more than 10% slower or faster.
    """
    drift = drift_of(table, measure_with_sentinels(table, setup_of(table), {}, progress))
    if abs(drift) > MAX_DRIFT:
        raise DmaskError(
            f"the device has drifted by {drift:+.0%} since '{table.source}' was measured (at most ±{MAX_DRIFT:.0%})",
            "close other programs, profile again, or go on with --allow-drift",
        )
    return drift
