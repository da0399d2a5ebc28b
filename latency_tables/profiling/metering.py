"""Measures the metrics of whole networks beside latency: each in a process of its own, for a few networks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn

from dmask_mobile.clock import now
from dmask_mobile.interruption import check_stopped, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from latency_tables.conversion.converter import ConversionError
from latency_tables.devices.device import NO_METER, MeasuringError, metered
from latency_tables.prediction.metrics import METRICS
from latency_tables.profiling.measuring import Measuring
from latency_tables.profiling.setup import Setup
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import MetricRow, NoMetricRow

logger = logging.getLogger(f"dmask_mobile.{__name__}")

TIMES = 3  # of one exported model
WARM_UP_SHAPE = (1, 3, 32, 32)


def warm_up_model(runtime: Runtime) -> bytes:
    """A small model that runs before the memory of another is measured, so that the runtime itself does not count."""
    return runtime.convert(nn.Conv2d(WARM_UP_SHAPE[1], 8, 3).eval(), WARM_UP_SHAPE, "fp32")


def meter_artifact(setup: Setup, metric: str, path: Path) -> tuple[float, ...]:
    """Several measurements of a metric of an exported model; see `meter_models`."""
    return meter_models(setup, metric, [setup.runtime.read(path)] * TIMES)


def meter_models(setup: Setup, metric: str, models: Sequence[bytes]) -> tuple[float, ...]:
    """A metric of each model, on the first device of ``setup``.

    Raises:
        MeasuringError: if the runtime fails, or the device does not report the metric.
        DeviceLostError, DeviceTroubleError: if the device is lost or cannot run any model.
        StoppedError: if a signal was received.
    """
    warm_up, values = warm_up_model(setup.runtime), list[float]()
    with stop_signals(), setup.devices[0].open(*setup.how_to_run) as session:
        for model in models:
            values.append(metered(session, metric, model, warm_up))
            check_stopped("measuring")
    return tuple(values)


def measure_metrics(measuring: Measuring, children: Sequence[ChildSpec], progress: Progress = silent) -> None:
    """Measures each metric of each network that the table lacks, on the first device.

    A metric that the device does not report is noted with the reason. A network that fails is left out with a warning.

    Raises:
        DeviceLostError, DeviceTroubleError: if the device is lost or cannot run any model.
        StoppedError: if a signal was received.
    """
    table = measuring.table()
    due = [(metric, child) for metric in METRICS for child in children if child not in table.metrics.get(metric, {})]
    if not due:
        return
    warm_up, session = warm_up_model(measuring.converter.runtime), measuring.devices[0].session
    left_out = set[str]()
    for done, (metric, child) in enumerate(due, start=1):
        if metric in left_out:
            continue
        try:
            value = metered(session, metric, measuring.converter.model(child), warm_up)
        except (ConversionError, MeasuringError) as error:
            if not isinstance(error, MeasuringError) or error.cause != NO_METER:
                logger.warning("%s of network %s could not be measured: %s", metric, child.name, error)
                continue
            left_out.add(metric)
            if table.not_reported.get(metric) != error.problem:
                measuring.add(NoMetricRow(at=now(), metric=metric, reason=error.problem))
        else:
            measuring.add(MetricRow(at=now(), metric=metric, child=child, value=value))
            progress("measure metrics", done, len(due), metric)
        check_stopped("profiling")


def metered_networks(networks: Iterable[ChildSpec], measured: Iterable[ChildSpec], count: int) -> list[ChildSpec]:
    """The first ``count`` of ``networks`` that are among the ``measured`` ones, then others that are."""
    among = set(measured)
    return [child for child in dict.fromkeys([*networks, *among]) if child in among][:count]
