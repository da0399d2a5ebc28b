"""Predicting with a table and measuring on its device: what a verification of latency needs."""

from __future__ import annotations

from pathlib import Path

from dmask_mobile.costs.latency import Latency
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate
from export.verify import UNSTABLE_NOISE, MeasuredLatency
from latency_tables.devices.local import LocalDevice
from latency_tables.plan import sentinels
from latency_tables.profile import Setup, remeasure
from latency_tables.runtimes.registry import runtime_named
from latency_tables.table import LatencyTable

ROUNDS, ATTEMPTS = 7, 3
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
        networks = self.table.networks
        chosen = {child: networks[child] for child in sentinels(tuple(networks))}
        for _ in range(ATTEMPTS):
            found = remeasure(path.read_bytes(), chosen, self.setup, ROUNDS, self.progress)
            measured = MeasuredLatency(found.summary.typical_ms, found.summary.noise, found.drift)
            if measured.noise <= UNSTABLE_NOISE:
                break
        return measured


def setup_of(table: LatencyTable) -> Setup:
    """The set-up on this machine that measures like ``table``.

    Raises:
        DmaskError: when this machine, the runtime's version or a setting differs.
    """
    setup = Setup(LocalDevice(), runtime_named(table.head.runtime), table.head.threads)
    table.head.check_same(setup.head(), f"table '{table.source}'")
    return setup
