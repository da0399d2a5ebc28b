"""Profiling: blocks and networks of a space, measured into a table until it is complete, good enough or time is up."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from export.latency_verdict import UNSTABLE_NOISE
from latency_tables.devices.device import MeasuringError, Samples, Session
from latency_tables.plan import Planner, networks_of, sentinels_of
from latency_tables.rows import (
    BlockAt,
    BlockRow,
    FailureRow,
    NetworkRow,
    SentinelRow,
    Subject,
    TableRow,
    describe_subject,
)
from latency_tables.setup import Setup, now
from latency_tables.table import LatencyTable
from latency_tables.writer import TableWriter

NETWORKS_DONE_AT = 0.8  # of the way: whole networks are spread over so much of it


class ProfileSettings(Record):
    """How long and how thoroughly to measure.

    ``minutes`` counts all runs of one table. Rounds lie apart in time, so that a disturbance meets one round of many
    blocks.
    """

    minutes: PositiveFloat | None = 6.0
    target_error: float | None = Field(default=None, gt=0, lt=1)
    rounds: PositiveInt = 3
    network_rounds: PositiveInt = 4
    batch_blocks: PositiveInt = 150
    seconds_per_block: PositiveFloat = 0.015
    seconds_per_network: PositiveFloat = 0.1
    threads: PositiveInt = 1


def profile_space(
    space: SearchSpace, setup: Setup, settings: ProfileSettings, path: Path, progress: Progress = silent
) -> LatencyTable:
    """Measures ``space`` into ``path``; goes on with what is there. Returns the table.

    Stops when every block is measured, when ``target_error`` is reached or when ``minutes`` are over, whichever
    comes first; the blocks that were not measured are predicted.

    Raises:
        DmaskError: when ``path`` is a table of another device, runtime or setting, or is being written to.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    with _measuring(setup, settings, path) as measuring:
        if measuring.writer.dropped_line:
            progress("profile", 0, 1, "dropped a line that was cut off")
        return _SpaceProfile(space, measuring).run(progress)


def profile_child(
    child: ChildSpec, setup: Setup, settings: ProfileSettings, path: Path, progress: Progress = silent
) -> LatencyTable:
    """Measures the blocks of ``child`` that the table in ``path`` lacks. Returns the table.

    Raises:
        DmaskError: as `profile_space`.
        StoppedError: after SIGTERM or Ctrl-C.
    """
    with _measuring(setup, settings, path) as measuring:
        measured = measuring.table().num_rounds
        wanted = dict.fromkeys(located for located in child.located_blocks() if located[0].kind != "skip")
        missing = [located for located in wanted if located not in measured]
        if missing:
            measuring.measure_rounds(missing, progress=progress)
        return measuring.table()


@contextmanager
def _measuring(setup: Setup, settings: ProfileSettings, path: Path) -> Iterator[_Measuring]:
    """The table locked, the device ready, signals noted."""
    with (
        TableWriter(path, setup.head()) as writer,
        setup.device.open(setup.runtime, setup.threads) as session,
        stop_signals() as stopped_by,
    ):
        yield _Measuring(setup, settings, session, writer, stopped_by)


class _Measuring:
    """Measures what it is told to into one table, and keeps the table's rows at hand."""

    def __init__(
        self,
        setup: Setup,
        settings: ProfileSettings,
        session: Session,
        writer: TableWriter,
        stopped_by: Callable[[], int | None],
    ) -> None:
        self.setup = setup
        self.settings = settings
        self.session = session
        self.writer = writer
        self.stopped_by = stopped_by
        table = writer.table
        self.head, self.rows = table.head, list(table.rows)
        self.sentinels = tuple(table.sentinels)
        self.done = {(row.subject, row.round) for row in self.rows if isinstance(row, BlockRow | NetworkRow)}
        self.loaded: set[Subject] = set()
        self.before_s = max((row.elapsed_s for row in self.rows if isinstance(row, SentinelRow)), default=0.0)
        self.start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds of profiling over all runs of this table."""
        return self.before_s + time.monotonic() - self.start

    def table(self) -> LatencyTable:
        """What there is so far."""
        return LatencyTable(self.head, tuple(self.rows), str(self.writer.path))

    def measure_rounds(
        self,
        blocks: Sequence[BlockAt],
        between: Callable[[], None] = lambda: None,
        progress: Progress = silent,
    ) -> None:
        """All rounds of ``blocks`` that are missing, with the sentinels before each and at the end."""
        ready = [block for block in blocks if self.load(block)]
        for round_ in range(self.settings.rounds):
            self.measure_sentinels()
            for number, block in enumerate(ready, start=1):
                self.measure(block, round_)
                progress(f"measure round {round_ + 1}/{self.settings.rounds}", number, len(ready))
            between()
        self.measure_sentinels()
        for block in ready:
            self.loaded.discard(block)
            self.session.unload(_key(block))

    def load(self, subject: Subject) -> bool:
        """Converts and loads, unless it is ready already; a failure becomes a row."""
        if subject in self.loaded:
            return True
        try:
            self.session.load(_key(subject), self.setup.convert(subject))
        except OSError:  # a full disk is no fault of the model
            raise
        except Exception as error:  # whatever a converter or runtime raises, the rest must still be measured
            self._fail(subject, error)
            return False
        self.loaded.add(subject)
        return True

    def measure(self, subject: Subject, round_: int) -> None:
        """One round, unless it was measured before.

        Raises:
            StoppedError: when a signal came.
        """
        if (subject, round_) not in self.done:
            network = isinstance(subject, ChildSpec)
            seconds = self.settings.seconds_per_network if network else self.settings.seconds_per_block
            samples = self._sample(subject, seconds)
            if samples is not None:
                common = {"round": round_, "at": now(), **samples._asdict()}
                if isinstance(subject, ChildSpec):
                    self._add(NetworkRow(child=subject, **common))
                else:
                    self._add(BlockRow(block=subject[0], in_size=subject[1], **common))
                self.done.add((subject, round_))
        if signal_number := self.stopped_by():
            raise StoppedError(signal_number, "profiling")

    def measure_sentinels(self) -> None:
        """One round of each sentinel."""
        round_ = sum(isinstance(row, SentinelRow) for row in self.rows) // max(1, len(self.sentinels))
        for child in self.sentinels:
            samples = self._sample(child, self.settings.seconds_per_block) if self.load(child) else None
            if samples is not None:
                common = {"round": round_, "at": now(), **samples._asdict()}
                self._add(SentinelRow(child=child, elapsed_s=round(self.elapsed_s, 3), **common))

    def _sample(self, subject: Subject, seconds: float) -> Samples | None:
        try:
            return self.session.sample(_key(subject), seconds)
        except MeasuringError as error:
            self._fail(subject, error)
            return None

    def _fail(self, subject: Subject, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(subject, ChildSpec):
            self._add(FailureRow(at=now(), child=subject, reason=reason))
        else:
            self._add(FailureRow(at=now(), block=subject[0], in_size=subject[1], reason=reason))

    def _add(self, row: TableRow) -> None:
        self.writer.add(row)
        self.rows.append(row)


class _SpaceProfile:
    """One run of `profile_space`."""

    def __init__(self, space: SearchSpace, measuring: _Measuring) -> None:
        self.measuring = measuring
        self.settings = measuring.settings
        self.planner = Planner(space, self.settings.rounds)
        self.networks = networks_of(space)
        measuring.sentinels = measuring.sentinels or sentinels_of(self.networks)
        failed = measuring.table().failures
        self.pending = [
            (child, round_)
            for round_ in range(self.settings.network_rounds)
            for child in self.networks
            if (child, round_) not in measuring.done and child not in failed
        ]
        self.num_network_rounds = len(self.networks) * self.settings.network_rounds

    def run(self, progress: Progress) -> LatencyTable:
        """Batches of blocks, with networks and sentinels between their rounds."""
        table = self.measuring.table()
        while not self._finished(table):
            batch = self.planner.next_batch(table, self.settings.batch_blocks)
            if not batch and not self.pending:
                break
            due = functools.partial(self._measure_networks, len(table.blocks), not batch)
            self.measuring.measure_rounds(batch, between=due)
            table = self.measuring.table()
            self._report(table, progress)
        return table

    def _finished(self, table: LatencyTable) -> bool:
        """Time is up or the error is small enough; not before the first batch and one round of every network."""
        settings = self.settings
        if not table.blocks or len(self.pending) > self.num_network_rounds - len(self.networks):
            return False
        if settings.minutes is not None and self.measuring.elapsed_s >= 60 * settings.minutes:
            return True
        return settings.target_error is not None and table.corrections.error <= settings.target_error

    def _measure_networks(self, num_blocks: int, everything: bool) -> None:
        """As many rounds of whole networks as keep pace with the blocks; all that are left when there are none."""
        share = num_blocks / len(self.planner.all)
        if self.settings.minutes is not None:
            share = max(share, self.measuring.elapsed_s / 60 / self.settings.minutes)
        due = self.num_network_rounds * (1.0 if everything else min(1.0, share / NETWORKS_DONE_AT))
        if self.settings.target_error is not None:  # an error can be told only once every network was measured
            due = max(due, float(len(self.networks)))
        while self.pending and self.num_network_rounds - len(self.pending) < due:
            child, round_ = self.pending.pop(0)
            if self.measuring.load(child):
                self.measuring.measure(child, round_)

    def _report(self, table: LatencyTable, progress: Progress) -> None:
        """Progress in seconds where time is the limit, else in blocks."""
        measured, total = len(table.blocks), len(self.planner.all)
        note = f"{measured}/{total} blocks, {len(table.networks)} networks"
        if len(table.networks) >= len(self.networks):
            note += f", error {table.corrections.error:.1%}"
        if table.failures:
            note += f", {len(table.failures)} failed"
        if self.settings.minutes is not None and measured < total:
            limit = round(60 * self.settings.minutes)
            progress("profile", min(limit, round(self.measuring.elapsed_s)), limit, note)
        else:
            progress("profile", measured, total, note)


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
        MeasuringError: when the runtime fails on one of them.
    """
    taken: dict[str, list[Sequence[float]]] = {key: [] for key in models}
    with setup.device.open(setup.runtime, setup.threads) as session:
        for key, model in models.items():
            session.load(key, model)
        for round_ in range(rounds):
            for key in models:
                taken[key].append(session.sample(key, seconds).wall_ms)
            progress("measure", round_ + 1, rounds)
    return taken


def _key(subject: Subject) -> str:
    """Names a model in a session."""
    return subject.digest() if isinstance(subject, ChildSpec) else repr(subject)
