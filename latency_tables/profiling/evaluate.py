"""Evaluates a table with children that were not used for fitting, which are measured on the device now."""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from latency_tables.prediction.correction import common_line
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.prediction.metrics import METRICS, MetricModel, what_is_lacking
from latency_tables.profiling.judging import Evaluation, MeasuredChild, MetricJudgement, judge, repeatability
from latency_tables.profiling.metering import meter_models
from latency_tables.profiling.profile import check_cool
from latency_tables.profiling.retaking import Retaking
from latency_tables.profiling.setup import Setup, setup_of
from latency_tables.profiling.table_probe import SECONDS_PER_NETWORK, named_models, sentinel_models
from latency_tables.table.statistics import RoundTime
from latency_tables.table.table import LatencyTable

PASSES = 4  # an even number: see `repeatability`
BATCH_CHILDREN = 25  # loaded at once
METRIC_CHILDREN = 20  # whose memory and energy are measured
BETWEEN_SENTINELS = 5  # children
TAKEN_AGAIN = 2  # a disturbed round
MAX_REPEATABILITY = 0.05  # of a machine on which an error can be measured
MAX_INTERRUPTED = 0.5  # of the rounds


class Pass(NamedTuple):
    """A child in one pass: milliseconds, the device's drift then, and whether other programs interrupted it."""

    ms: float
    drift: float
    interrupted: bool


def unseen_children(table: LatencyTable, space: SearchSpace, count: int, seed: int) -> list[ChildSpec]:
    """Random children of ``space`` that the table did not measure."""
    generator, used = random.Random(f"evaluate-{seed}"), {child.digest() for child in table.networks}
    found: dict[str, ChildSpec] = {}
    for number in range(100 * count):
        child = space.child(space.sample(generator), f"{space.name}-unseen{number}")
        if child.digest() not in used:
            found.setdefault(child.digest(), child)
        if len(found) == count:
            break
    return list(found.values())


def evaluate(
    table: LatencyTable, children: Sequence[ChildSpec], progress: Progress = silent, at: str | None = None
) -> Evaluation:
    """Measures ``children`` in four passes at different times, and compares the table's predictions with this.

    Args:
        table: the table.
        children: networks that are not in the table.
        progress: is called after each batch.
        at: how the table's device is reached now, if this has changed.

    Raises:
        DmaskError: if the table belongs to another device or runtime, cannot predict a child, or the device is too
            busy.
        MeasuringError: if the runtime fails for a child.
    """
    if not children:
        raise DmaskError("no children to evaluate the table on", "the space has none that it did not measure itself")
    setup, model = setup_of(table, at), LatencyModel(table)
    latency = Latency(model)
    estimates = [latency.estimate(child) for child in children]
    models = named_models(setup, "child", children, progress)
    taken = _passes(table, setup, models, progress)
    check_quiet([each for passes in taken for each in passes])
    passes_ms, drifts = (np.array([[getattr(p, name) for p in passes] for passes in taken]) for name in ("ms", "drift"))
    passes_ms = steadier(passes_ms, drifts)
    check_repeatable(passes_ms)
    measured, line = [], common_line(model.whole_networks())
    for child, estimate, times, drift in zip(children, estimates, passes_ms, drifts, strict=True):
        sum_ms = model.whole_network(child, float(np.mean(times))).sum_ms
        measured.append(
            MeasuredChild(
                child=child,
                predicted_ms=estimate.value,
                spread_ms=estimate.spread,
                sum_ms=table.scale * sum_ms,
                line_ms=table.scale * line.apply(sum_ms),
                passes_ms=tuple(map(float, times)),
                drift=tuple(map(float, drift)),
            )
        )
    few = dict(itertools.islice(zip(children, models.values(), strict=True), METRIC_CHILDREN))
    return judge(measured).model_copy(update={"metrics": judge_metrics(table, setup, few)})


def judge_metrics(table: LatencyTable, setup: Setup, models: Mapping[ChildSpec, bytes]) -> tuple[MetricJudgement, ...]:
    """How well the table predicts the metrics beside latency of networks that are measured now."""
    found = []
    for metric in METRICS:
        if what_is_lacking(table, metric) is None:
            measured = meter_models(setup, metric, list(models.values()))
            predicted = [MetricModel(table, metric).estimate(child).value for child in models]
            mape = float(np.mean(np.abs(np.array(predicted) / np.array(measured) - 1)))
            found.append(MetricJudgement(metric=metric, num_children=len(models), mape=mape))
    return tuple(found)


def check_quiet(passes: Sequence[Pass]) -> None:
    """Checks that most of the time no other program ran on the measuring cores.

    Raises:
        DmaskError: if other programs interrupted more than half of the rounds.
    """
    share = float(np.mean([each.interrupted for each in passes]))
    if share > MAX_INTERRUPTED:
        raise DmaskError(
            f"too busy to judge a table: other programs ran on the measuring core during {share:.0%} of the rounds",
            "close other programs, then start the same command again",
        )


def check_repeatable(passes_ms: np.ndarray) -> None:
    """Checks that a child takes about as long in each pass.

    Raises:
        DmaskError: if a table without any error would be more than 5% off.
    """
    found = repeatability(passes_ms)
    if found > MAX_REPEATABILITY:
        raise DmaskError(
            f"too busy to judge a table: the same networks differ so much between passes that even a perfect table"
            f" would be {found:.1%} off (at most {MAX_REPEATABILITY:.0%})",
            "close other programs, then start the same command again",
        )


def steadier(passes_ms: np.ndarray, drifts: np.ndarray) -> np.ndarray:
    """The passes unchanged or corrected for their drift, whichever repeats better.

    The result is for the speed of the device in the middle of the passes.

    Args:
        passes_ms: (children, passes), the latencies of each child.
        drifts: (children, passes), the drift at each measurement.
    """
    corrected = passes_ms * (1 + np.median(drifts)) / (1 + drifts)
    return corrected if repeatability(corrected) < repeatability(passes_ms) else passes_ms


def _passes(table: LatencyTable, setup: Setup, models: Mapping[str, bytes], progress: Progress) -> list[list[Pass]]:
    """Each model in every pass; models are loaded again for each pass, because their memory addresses affect times."""
    taken: dict[str, list[Pass]] = {key: [] for key in models}
    sentinels, done = sentinel_models(table, setup), 0
    for _ in range(PASSES):
        keys = iter(models)
        while batch := list(itertools.islice(keys, BATCH_CHILDREN)):
            for key, found in _measure_batch(table, setup, {key: models[key] for key in batch}, sentinels):
                taken[key].append(found)
            done += len(batch)
            progress("evaluate", done, PASSES * len(models))
    return list(taken.values())


def _measure_batch(
    table: LatencyTable, setup: Setup, models: Mapping[str, bytes], sentinels: Mapping[str, bytes]
) -> Iterator[tuple[str, Pass]]:
    """One round of each model; its drift is interpolated between rounds of the sentinels.

    A disturbed round is taken again after the others, at most twice.
    """
    references, retaking = list(table.references), Retaking()
    found: dict[str, tuple[int, RoundTime]] = {}
    visits: list[tuple[int, dict[ChildSpec, RoundTime]]] = []
    waiting, tries = deque(models), Counter[str]()
    with stop_signals(), setup.devices[0].open(*setup.how_to_run) as session:

        def time_of(key: str) -> RoundTime:
            samples = retaking.sample(lambda: session.sample(key, SECONDS_PER_NETWORK))
            check_cool(samples)
            check_stopped("measuring")
            return table.round_time(samples)

        for key, model in {**models, **sentinels}.items():
            session.load(key, model)
            check_stopped("measuring")
        for place in itertools.count():
            if place % BETWEEN_SENTINELS == 0 or not waiting:
                visits.append((place, {c: time_of(name) for c, name in zip(references, sentinels, strict=True)}))
            if not waiting:
                break
            key = waiting.popleft()
            found[key] = place, time_of(key)
            tries[key] += 1
            if found[key][1].interrupted and tries[key] <= TAKEN_AGAIN:
                waiting.append(key)
    steady = [(place, {c: time for c, time in times.items() if not time.interrupted}) for place, times in visits]
    steady = [visit for visit in steady if visit[1]] or visits
    drifts = [table.drift_of({child: [time.ms] for child, time in times.items()}) for _, times in steady]
    places = [place for place, _ in steady]
    for key, (place, time) in found.items():
        yield key, Pass(time.ms, float(np.interp(place + 0.5, places, drifts)), time.interrupted)
