"""Profiling: blocks and networks of a space, measured into a table until it is complete, good enough or time is up."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from export.verification.latency_verdict import UNSTABLE_NOISE
from latency_tables.devices.device import MeasuringError, Samples
from latency_tables.prediction.correction import MIN_NETWORKS
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.measuring import Measuring, measuring_into
from latency_tables.profiling.metering import measure_metrics, metered_networks
from latency_tables.profiling.plan import (
    Planner,
    alternating,
    blocks_of,
    few_networks_of,
    networks_of,
    sentinels_of,
    spread_networks_of,
)
from latency_tables.profiling.retaking import Retaking
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup
from latency_tables.table.rows import describe_subject
from latency_tables.table.table import LatencyTable

logger = logging.getLogger(f"dmask_mobile.{__name__}")

NETWORKS_DONE_AT = 0.8  # of the way: whole networks are spread over so much of it
BUSY_SHARE = 0.3  # of disturbed rounds, beyond which the command says so
NETWORKS_SHARE, CONVERTING_SHARE = (
    0.3,
    0.5,
)  # of the time left: for whole networks between two rounds, for converting blocks
MIN_BATCH_BLOCKS, FIRST_SLOW_BATCH_BLOCKS, FIRST_LIKE_BATCH_BLOCKS = 10, 60, 120


def profile_space(
    space: SearchSpace,
    setup: Setup,
    settings: ProfileSettings,
    path: Path,
    progress: Progress = silent,
    like: LatencyTable | None = None,
) -> LatencyTable:
    """The table at ``path`` after measuring ``space`` into it; continues a table that is there.

    Stops when every block is measured, when ``target_error`` is reached or when ``minutes`` are over, whichever
    comes first; the blocks that were not measured are predicted. `what_is_missing` says what there was no time for.
    Then the metrics beside latency are measured, for a few of the networks.
    With ``like``, a table of another device or runtime, predictions begin with its latencies, and some tens of blocks
    and ten networks are enough.

    Raises:
        DmaskError: when ``path`` is a table of another device, runtime or setting, or is being written to, and when
            nothing can be measured.
        DeviceLostError: when the device is gone.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    with measuring_into(path, setup, settings, like) as measuring:
        if measuring.writer.dropped_line:
            logger.warning("'%s': dropped an incomplete line", path)
        measuring.limit(settings.minutes)
        table = _SpaceProfile(space, measuring).run(progress)
        few = metered_networks(spread_networks_of(networks_of(space)), table.networks, settings.metric_networks)
        measure_metrics(measuring, few, progress)
        table = measuring.table()
    if not table.blocks:
        reason = next((f": {failure}" for failure in describe_failures(table)), f" in {settings.minutes:g} minutes")
        raise DmaskError(
            f"no block could be measured into '{path}'{reason}",
            "give more --minutes, which counts all runs of a table, and start the same command again; where blocks"
            " failed, 'dmask doctor' looks for causes and --retry-failures tries them again",
        )
    return table


def profile_child(
    child: ChildSpec, setup: Setup, settings: ProfileSettings, path: Path, progress: Progress = silent
) -> LatencyTable:
    """Measures the blocks of ``child`` that the table in ``path`` lacks. Returns the table.

    Raises:
        DmaskError, DeviceLostError: as `profile_space`.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    with measuring_into(path, setup, settings) as measuring:
        measured = measuring.table().num_rounds
        wanted = dict.fromkeys(located for located in child.located_blocks() if located[0].kind != "skip")
        missing = [located for located in wanted if located not in measured]
        if missing:
            measuring.measure_rounds(missing, progress=progress)
        return measuring.table()


class _SpaceProfile:
    """One run of `profile_space`."""

    def __init__(self, space: SearchSpace, measuring: Measuring) -> None:
        self.measuring = measuring
        self.settings = measuring.settings
        self.planner = Planner(space, self.settings.rounds, measuring.failed)
        networks = networks_of(space)
        if measuring.head.prior:
            networks = few_networks_of(networks)
        measuring.sentinels = measuring.sentinels or sentinels_of(networks)
        self.networks = networks if measuring.head.prior else alternating(networks)
        self.num_blocks_before = len(measuring.table().blocks)
        self.num_network_rounds = len(self.networks) * self.settings.network_rounds

    @property
    def pending(self) -> list[tuple[ChildSpec, int]]:
        """Rounds of whole networks that were not measured, without networks that failed."""
        return [
            (child, round_)
            for round_ in range(self.settings.network_rounds)
            for child in self.networks
            if (child, round_) not in self.measuring.done and child not in self.measuring.failed
        ]

    def run(self, progress: Progress) -> LatencyTable:
        """Batches of blocks, with networks and sentinels between their rounds."""
        model = LatencyModel(self.measuring.table())
        while not self._finished(model):
            num_blocks, num_done = len(model.table.blocks), len(self.measuring.done)
            size = self._batch_size(num_blocks)
            batch = self.planner.next_batch(model, size) if size else []
            if not batch and not self.pending:
                break
            tell = self._in_seconds(progress)
            due = functools.partial(self._measure_networks, num_blocks, not batch, tell)
            share = CONVERTING_SHARE if self.planner.can_predict(model) else 1.0
            self.measuring.measure_rounds(batch, due, tell, share)
            model = LatencyModel(self.measuring.table())
            self._report(model, progress)
            if len(self.measuring.done) == num_done:  # no time for more
                break
        return model.table

    def _batch_size(self, num_blocks: int) -> int:
        """How many blocks can be converted and measured in the time that is left, at the pace so far; 0 for too few."""
        measuring, new = self.measuring, num_blocks - self.num_blocks_before
        if not new and measuring.head.prior:
            return min(self.settings.batch_blocks, FIRST_LIKE_BATCH_BLOCKS)
        if not new:
            slow = measuring.converter.slow
            return min(self.settings.batch_blocks, FIRST_SLOW_BATCH_BLOCKS if slow else self.settings.batch_blocks)
        if math.isinf(measuring.left_s):
            return self.settings.batch_blocks
        size = int(measuring.left_s * new / (measuring.elapsed_s - measuring.before_s))
        return min(self.settings.batch_blocks, size) if size >= MIN_BATCH_BLOCKS else 0

    def _finished(self, model: LatencyModel) -> bool:
        """Time is up, or the error is small enough after one round of every network."""
        if self.measuring.left_s <= 0:
            return True
        if not model.table.blocks or len(self.pending) > self.num_network_rounds - len(self.networks):
            return False
        return self.settings.target_error is not None and error_of(model) <= self.settings.target_error

    def _measure_networks(self, num_blocks: int, everything: bool, progress: Progress) -> None:
        """As many rounds of whole networks as keep pace with the blocks; all that are left when there are none."""
        share, pending = num_blocks / len(self.planner.all), self.pending
        if self.settings.minutes is not None:
            share = max(share, self.measuring.elapsed_s / 60 / self.settings.minutes)
        due = self.num_network_rounds * (1.0 if everything else min(1.0, share / NETWORKS_DONE_AT))
        if self.settings.target_error is not None:  # an error can be told only once every network was measured
            due = max(due, float(len(self.networks)))
        count = max(0, math.ceil(due) - (self.num_network_rounds - len(pending)))
        self.measuring.measure_networks(pending[:count], 1.0 if everything else NETWORKS_SHARE, progress)

    def _in_seconds(self, progress: Progress) -> Progress:
        """Progress in seconds of the time limit, with the present work; in units of the work without a limit."""
        if self.settings.minutes is None:
            return progress if self.measuring.converter.slow else silent
        limit = math.ceil(60 * self.settings.minutes)

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            said = ", ".join(filter(None, (f"{stage} {done}/{total}", note)))
            progress("profile", min(limit - 1, round(self.measuring.elapsed_s)), limit, said)

        return tell

    def _report(self, model: LatencyModel, progress: Progress) -> None:
        """Progress in seconds where time is the limit, else in blocks."""
        table = model.table
        measured, total = len(table.blocks), len(self.planner.all)
        note = f"{measured}/{total} blocks, {len(table.networks)} networks"
        if len(table.networks) >= len(self.networks):
            error = error_of(model)
            note += f", error {error:.1%}" if math.isfinite(error) else ""
        if table.failures:
            note += f", {len(table.failures)} failed"
        if self.settings.minutes is None:
            progress("profile", measured, total, note)
        else:
            limit = math.ceil(60 * self.settings.minutes)
            is_complete = not self.pending and not self.planner.missing(table)
            progress("profile", limit if is_complete else min(limit, round(self.measuring.elapsed_s)), limit, note)


def what_is_missing(table: LatencyTable, space: SearchSpace) -> str | None:
    """What a table lacks for predicting the networks of a space, and what to do; None when it lacks nothing."""
    model, lacking = LatencyModel(table), []
    blocks = blocks_of(space)
    unknown = [block for block in blocks if block not in table.blocks and not model.can_predict(block[0].kind)]
    if unknown:
        lacking.append(f"{len(unknown)} of {len(blocks)} blocks were not measured and cannot be predicted yet")
    if len(table.networks) < MIN_NETWORKS:
        lacking.append(f"{len(table.networks)} whole networks are measured, at least {MIN_NETWORKS} are needed")
    if not lacking:
        return None
    return f"incomplete: {'; '.join(lacking)}; start the same command again, with more --minutes if they are used up"


def error_of(model: LatencyModel) -> float:
    """The error on networks left out; infinite while too few blocks of a kind were measured to predict the others."""
    try:
        return model.corrections.error
    except DmaskError:
        return math.inf


def stability(table: LatencyTable) -> str | None:
    """A warning when the rounds of whole networks disagree by more than 10%, or many rounds were disturbed."""
    noise, disturbed = table.noise(), table.disturbed_share
    if noise > UNSTABLE_NOISE:
        return f"unstable: spread {noise:.0%}; close other programs or use --rounds 8"
    if disturbed > BUSY_SHARE:
        return (
            f"busy: other programs or virtual machines disturbed {disturbed:.0%} of the rounds; close them, or give"
            " more --minutes"
        )
    return None


def describe_failures(table: LatencyTable) -> Iterable[str]:
    """What could not be measured, and why."""
    return (f"{describe_subject(subject)}: {reason}" for subject, reason in table.failures.items())


def check_cool(samples: Samples) -> None:
    """Checks that a round was measured at the device's full speed.

    Raises:
        MeasuringError: when it was hot.
    """
    if samples.hot:
        raise MeasuringError("the device stays too warm for its full speed", "let it cool, then try again")


def remeasure(
    models: dict[str, bytes], setup: Setup, rounds: int, seconds: float, progress: Progress = silent
) -> dict[str, list[Samples]]:
    """Each model in each round; the models alternate, and rounds that other programs interrupted are taken again.

    Raises:
        MeasuringError: when the runtime fails on one of them, and when the device stays hot.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    taken: dict[str, list[Samples]] = {key: [] for key in models}
    retaking = Retaking()
    with stop_signals(), setup.devices[0].open(*setup.how_to_run) as session:
        for key, model in models.items():
            session.load(key, model)
            check_stopped("measuring")
        for round_ in range(rounds):
            for key in models:
                taken[key].append(retaking.sample(lambda key=key: session.sample(key, seconds)))  # type: ignore[misc]
                check_cool(taken[key][-1])
                check_stopped("measuring")
            progress("measure", round_ + 1, rounds)
    return taken
