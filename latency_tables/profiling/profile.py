"""Profiling: blocks and networks of a space, measured into a table until it is complete, good enough or time is up."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from export.verification.latency_verdict import UNSTABLE_NOISE
from latency_tables.devices.device import MeasuringError
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.measuring import Measuring, ProfileSettings, measuring_into
from latency_tables.profiling.plan import Planner, networks_of, sentinels_of
from latency_tables.profiling.setup import Setup
from latency_tables.table.rows import describe_subject
from latency_tables.table.table import LatencyTable

NETWORKS_DONE_AT = 0.8  # of the way: whole networks are spread over so much of it
MIN_BATCH_BLOCKS, FIRST_SLOW_BATCH_BLOCKS = 10, 60


def profile_space(
    space: SearchSpace, setup: Setup, settings: ProfileSettings, path: Path, progress: Progress = silent
) -> LatencyTable:
    """Measures ``space`` into ``path``; goes on with what is there. Returns the table.

    Stops when every block is measured, when ``target_error`` is reached or when ``minutes`` are over, whichever
    comes first; the blocks that were not measured are predicted.

    Raises:
        DmaskError: when ``path`` is a table of another device, runtime or setting, or is being written to, and when
            not a single block could be measured.
        DeviceLostError: when the device is gone.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    with measuring_into(path, setup, settings) as measuring:
        if measuring.writer.dropped_line:
            progress("profile", 0, 1, "dropped a line that was cut off")
        table = _SpaceProfile(space, measuring).run(progress)
    if not table.blocks:
        subject, reason = next(iter(table.failures.items()))
        raise DmaskError(
            f"nothing could be measured into '{path}': {describe_subject(subject)}: {reason}",
            f"mend that, remove '{path}' and profile again; 'dmask doctor' looks for causes",
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
        self.planner = Planner(space, self.settings.rounds)
        self.networks = networks_of(space)
        measuring.sentinels = measuring.sentinels or sentinels_of(self.networks)
        table = measuring.table()
        self.num_blocks_before, failed = len(table.blocks), table.failures
        self.pending = [
            (child, round_)
            for round_ in range(self.settings.network_rounds)
            for child in self.networks
            if (child, round_) not in measuring.done and child not in failed
        ]
        self.num_network_rounds = len(self.networks) * self.settings.network_rounds

    def run(self, progress: Progress) -> LatencyTable:
        """Batches of blocks, with networks and sentinels between their rounds."""
        model = LatencyModel(self.measuring.table())
        while not self._finished(model):
            num_blocks = len(model.table.blocks)
            batch = self.planner.next_batch(model, self._batch_size(num_blocks))
            if not batch and not self.pending:
                break
            due = functools.partial(self._measure_networks, num_blocks, not batch, progress)
            self.measuring.measure_rounds(batch, due, progress if self.measuring.converter.slow else silent)
            model = LatencyModel(self.measuring.table())
            self._report(model, progress)
            if not model.table.blocks:  # a whole batch failed: the others would as well
                break
        return model.table

    def _batch_size(self, num_blocks: int) -> int:
        """How many blocks can be converted and measured in the time that is left, at the pace so far."""
        size, new = self.settings.batch_blocks, num_blocks - self.num_blocks_before
        if self.measuring.converter.slow and not new:
            size = min(size, FIRST_SLOW_BATCH_BLOCKS)
        elif self.settings.minutes is not None and new:
            left_s = 60 * self.settings.minutes - self.measuring.elapsed_s
            pace = new / (self.measuring.elapsed_s - self.measuring.before_s)
            size = min(size, max(MIN_BATCH_BLOCKS, int(pace * left_s)))
        return size

    def _finished(self, model: LatencyModel) -> bool:
        """Time is up or the error is small enough; not before the first batch and one round of every network."""
        settings = self.settings
        if not model.table.blocks or len(self.pending) > self.num_network_rounds - len(self.networks):
            return False
        if settings.minutes is not None and self.measuring.elapsed_s >= 60 * settings.minutes:
            return True
        return settings.target_error is not None and error_of(model) <= settings.target_error

    def _measure_networks(self, num_blocks: int, everything: bool, progress: Progress) -> None:
        """As many rounds of whole networks as keep pace with the blocks; all that are left when there are none."""
        share = num_blocks / len(self.planner.all)
        if self.settings.minutes is not None:
            share = max(share, self.measuring.elapsed_s / 60 / self.settings.minutes)
        due = self.num_network_rounds * (1.0 if everything else min(1.0, share / NETWORKS_DONE_AT))
        if self.settings.target_error is not None:  # an error can be told only once every network was measured
            due = max(due, float(len(self.networks)))
        count = max(0, math.ceil(due) - (self.num_network_rounds - len(self.pending)))
        taken, self.pending = self.pending[:count], self.pending[count:]
        self.measuring.measure_networks(taken, progress)

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
        if self.settings.minutes is not None and measured < total:
            limit = round(60 * self.settings.minutes)
            progress("profile", min(limit, round(self.measuring.elapsed_s)), limit, note)
        else:
            progress("profile", measured, total, note)


def error_of(model: LatencyModel) -> float:
    """The error on networks left out; infinite while too few blocks of a kind were measured to predict the others."""
    try:
        return model.corrections.error
    except DmaskError:
        return math.inf


def stability(table: LatencyTable) -> str | None:
    """A warning when the rounds of whole networks disagree by more than 10%."""
    noise = table.noise()
    if noise <= UNSTABLE_NOISE:
        return None
    return f"unstable: spread {noise:.0%}; close other programs or use --rounds 8"


def describe_failures(table: LatencyTable) -> Iterable[str]:
    """What could not be measured, and why."""
    return (f"{describe_subject(subject)}: {reason}" for subject, reason in table.failures.items())


def remeasure(
    models: dict[str, bytes], setup: Setup, rounds: int, seconds: float, progress: Progress = silent
) -> dict[str, list[Sequence[float]]]:
    """The wall times of each model in each round; the models alternate.

    Raises:
        MeasuringError: when the runtime fails on one of them, and when the device stays hot.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    taken: dict[str, list[Sequence[float]]] = {key: [] for key in models}
    with stop_signals(), setup.devices[0].open(*setup.how_to_run) as session:
        for key, model in models.items():
            session.load(key, model)
        for round_ in range(rounds):
            for key in models:
                samples = session.sample(key, seconds)
                if samples.hot:
                    raise MeasuringError("the device stays too warm for its full speed", "let it cool, then try again")
                check_stopped("measuring")
                taken[key].append(samples.wall_ms)
            progress("measure", round_ + 1, rounds)
    return taken
