"""Predicts with a table and measures on its device, as needed for the verification of a latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dmask_mobile.clock import now
from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.quantities import TABLE_UNITS
from dmask_mobile.records.artifact import LatencyPrediction
from dmask_mobile.records.child import ChildSpec
from export.verification.latency_verdict import MAX_DRIFT, UNSTABLE_NOISE, MeasuredLatency, PredictedLatency
from export.verification.metric_verdict import PredictedMetric
from latency_tables.conversion.converter import converter_for
from latency_tables.devices.device import Samples
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.prediction.metrics import METRICS, MetricModel, what_is_lacking
from latency_tables.profiling.metering import meter_artifact
from latency_tables.profiling.profile import remeasure
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup, setup_of
from latency_tables.runtimes.registry import runtime_named
from latency_tables.table.rows import RecheckRow
from latency_tables.table.statistics import summarize
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter

ROUNDS, ATTEMPTS = 7, 3
SENTINEL = "sentinel"  # the names of their models, before their numbers
SECONDS_PER_NETWORK = ProfileSettings().seconds_per_network


def probe_of(table: LatencyTable, progress: Progress = silent) -> TableProbe | str:
    """Measures on the table's device, or the reason why nothing can be measured there.

    Args:
        table: the table.
        progress: is called while measuring.
    """
    if table.head.emulated:
        return "the table was measured on an emulator, its times are meaningless"
    try:
        return TableProbe(table, progress)
    except DmaskError as error:
        return f"the device cannot be reached: {error}"


def predicted_latency(
    table: LatencyTable, name: str, child: ChildSpec, budgets: Mapping[str, float], probe: TableProbe | str
) -> PredictedLatency:
    """The child's latency as predicted by ``table``.

    Args:
        table: the table.
        name: the name of its line.
        child: the network.
        budgets: the budgets of a search for this latency in ms, by name.
        probe: that of `probe_of`.
    """
    model_format = runtime_named(table.head.runtime).model_format
    head, predicted = table.head, predict(table, child)
    return PredictedLatency(name, model_format, head.precision, predicted, budgets, probe, head.delegate)


def predict(table: LatencyTable, child: ChildSpec) -> LatencyPrediction:
    """The table's prediction in the form that exported models contain."""
    estimate, head = Latency(LatencyModel(table)).estimate(child), table.head
    return LatencyPrediction(
        ms=estimate.value,
        spread_ms=estimate.spread,
        table_digest=table.digest,
        device=head.device,
        runtime=f"{head.runtime} {head.runtime_version}",
        precision=head.precision,
        threads=head.threads,
    )


class TableProbe:
    """`LatencyProbe` and `MetricProbe` of `export.verification` on a connected device, which must be the table's.

    Raises:
        DmaskError: if the table was measured with another device, runtime version or setting.
    """

    def __init__(self, table: LatencyTable, progress: Progress = silent) -> None:
        self.table = table
        self.setup = setup_of(table)
        self.progress = progress

    def meter(self, metric: str, path: Path) -> tuple[float, ...]:
        """Measures a metric of the artifact now."""
        return meter_artifact(self.setup, metric, path)

    def measure(self, path: Path) -> MeasuredLatency:
        """Measures the artifact now, in rounds that alternate with the table's sentinels.

        A noisy measurement is repeated, at most three times, because noise does not show a wrong latency.
        """
        models = {"artifact": self.setup.runtime.read(path), **sentinel_models(self.table, self.setup)}
        for _ in range(ATTEMPTS):
            taken = remeasure(models, self.setup, ROUNDS, SECONDS_PER_NETWORK, self.progress)
            summary = summarize(self.table.rounds_ms(taken["artifact"]))
            measured = MeasuredLatency(summary.typical_ms, summary.noise, drift_of(self.table, taken))
            if summary.noise <= UNSTABLE_NOISE:
                break
        return measured


def predicted_metrics(
    table: LatencyTable,
    lines: Mapping[str, str],
    child: ChildSpec,
    budgets: Mapping[str, Mapping[str, float]],
    probe: TableProbe | str,
) -> list[PredictedMetric]:
    """The child's metrics as predicted by ``table``, without those that it has too few measurements of.

    Args:
        table: the table.
        lines: for each metric, the name of its line.
        child: the network.
        budgets: for each metric, the budgets of a search for it, by name.
        probe: that of `probe_of`.
    """
    head = table.head
    return [
        PredictedMetric(
            metric=metric,
            name=line,
            unit=TABLE_UNITS[metric],
            model_format=runtime_named(head.runtime).model_format,
            precision=head.precision,
            predicted=MetricModel(table, metric).estimate(child).value,
            tolerance=METRICS[metric].tolerance,
            budgets=budgets[metric],
            probe=probe,
        )
        for metric, line in lines.items()
        if what_is_lacking(table, metric) is None
    ]


def sentinel_models(table: LatencyTable, setup: Setup) -> dict[str, bytes]:
    """The models that show drift, named ``sentinel0`` and so on, which are measured together with others."""
    return named_models(setup, SENTINEL, tuple(table.references))


def named_models(
    setup: Setup, name: str, children: Sequence[ChildSpec], progress: Progress = silent
) -> dict[str, bytes]:
    """The models of networks, named ``name0`` and so on."""
    with converter_for(setup.runtime, setup.precision) as converter:
        converter.convert_all(children, progress)
        return {f"{name}{number}": converter.model(child) for number, child in enumerate(children)}


def drift_of(table: LatencyTable, taken: Mapping[str, Sequence[Samples]]) -> float:
    """How much slower the device is now than when the table was made, or last checked; 0 without whole networks.

    Args:
        table: the table.
        taken: the measured rounds of each of `sentinel_models`.
    """
    by_child = {child: taken[f"{SENTINEL}{number}"] for number, child in enumerate(table.references)}
    return table.drift_of({child: table.rounds_ms(rounds) for child, rounds in by_child.items()})


def recheck(table: LatencyTable, path: Path, at: str | None = None, progress: Progress = silent) -> LatencyTable:
    """The table at ``path`` after measuring its sentinels again; it then predicts for the current speed of the device.

    Raises:
        DmaskError: if the device is absent or a different one, or the table has no whole networks.
    """
    if not table.references:
        raise DmaskError(
            f"'{table.source}' holds no whole network to check the device by",
            f"finish it: dmask profile SPACE -o {table.source}",
        )
    setup = setup_of(table, at)
    taken = remeasure(sentinel_models(table, setup), setup, ROUNDS, SECONDS_PER_NETWORK, progress)
    check = 1 + max((row.check for row in table.rows if isinstance(row, RecheckRow)), default=-1)
    with TableWriter(path, setup.head()) as writer:
        for number, child in enumerate(table.references):
            for round_, samples in enumerate(taken[f"{SENTINEL}{number}"]):
                writer.add(RecheckRow(child=child, check=check, round=round_, at=now(), **samples._asdict()))
    return LatencyTable.read(path)


def check_drift(table: LatencyTable, progress: Progress = silent) -> float:
    """Measures the table's sentinels now and returns the drift.

    Raises:
        DmaskError: if the device is a different one, or has become more than 10% slower or faster.
    """
    setup = setup_of(table)
    drift = drift_of(table, remeasure(sentinel_models(table, setup), setup, ROUNDS, SECONDS_PER_NETWORK, progress))
    if abs(drift) > MAX_DRIFT:
        raise DmaskError(
            f"the device has drifted by {drift:+.0%} since '{table.source}' was measured (at most ±{MAX_DRIFT:.0%})",
            f"close other programs; if it stays so: dmask table check {table.source}, which scales the table to the"
            " device as it is now; or continue with --allow-drift",
        )
    return drift
