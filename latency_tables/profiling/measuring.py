"""Measures the requested models into one table, on one device or on several identical ones."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.child import ChildSpec
from latency_tables.conversion.converter import Converter, converter_for
from latency_tables.devices.device import Samples, Session
from latency_tables.devices.device_options_store import save_device_options
from latency_tables.profiling.measured_device import MAX_FAILURES, MeasuredDevice, describe_failure
from latency_tables.profiling.plan import block_sentinels_of
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup
from latency_tables.shortage import tells_of_shortage
from latency_tables.table.rows import (
    BlockAt,
    BlockRow,
    BlockSentinelRow,
    ConditionsRow,
    FailureRow,
    NetworkRow,
    PriorRow,
    SentinelRow,
    SharesRow,
    Subject,
    TableRow,
)
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter

THERMAL_UNKNOWN = "the phone's thermal state is unknown"
NETWORKS_BETWEEN_SENTINELS = 12
BLOCK_SENTINELS_SHARE = 0.05  # of the remaining time; they are measured before each round and at the end
LOADING_SHARE = 0.7  # the share of a round for loading its blocks
SENTINEL_TIMES = 2  # times as long as a block, because they are compared with later rounds
T = TypeVar("T")


@contextmanager
def measuring_into(
    path: Path, setup: Setup, settings: ProfileSettings, like: LatencyTable | None = None
) -> Iterator[Measuring]:
    """Locks the table, prepares the devices and notes signals; with ``like``, adds that table's latencies.

    Raises:
        DmaskError: if ``path`` is a table of another device, runtime or setting, or is being written to.
    """
    with ExitStack() as stack:
        # Before the devices: no signal may have its effect between their preparation and the block that undoes it.
        stack.enter_context(stop_signals())
        head = setup.head()
        if like is not None:
            head = head.model_copy(update={"prior": like.digest})
        converter = stack.enter_context(converter_for(setup.runtime, setup.precision))
        sessions = [stack.enter_context(device.open(*setup.how_to_run)) for device in setup.devices]
        writer = stack.enter_context(TableWriter(path, head))  # last, so that no table is begun if a device refuses
        save_device_options(writer.table.head, setup.reached)
        if like is not None:
            add_prior(writer, like)
        yield Measuring(sessions, settings, converter, writer)


def add_prior(writer: TableWriter, like: LatencyTable) -> None:
    """Writes the latencies of ``like`` to the table, unless they are already there.

    Raises:
        DmaskError: if the table was begun with another one, or without any.
    """
    table = writer.table
    if table.head.prior != like.digest:
        raise DmaskError(
            f"'{table.source}' was begun {'with another' if table.head.prior else 'without a'} table of --like",
            "leave out --like to continue it, or give another file with -o",
        )
    rows = [
        PriorRow(block=block, in_size=in_size, ms=summary.typical_ms)
        for (block, in_size), summary in like.blocks.items()
        if (block, in_size) not in table.prior
    ]
    writer.add(*rows)
    writer.table = LatencyTable(table.head, (*table.rows, *rows), table.source)


class Measuring:
    """Measures the requested models into one table, and keeps the table's rows in memory.

    Args:
        sessions: the sessions of identical devices, which share the work.
        settings: the length and the number of rounds.
        converter: converts the models.
        writer: writes the table.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        settings: ProfileSettings,
        converter: Converter,
        writer: TableWriter,
    ) -> None:
        self.devices = [MeasuredDevice(index, session, converter, self._fail) for index, session in enumerate(sessions)]
        self.settings = settings
        self.converter = converter
        self.writer = writer
        table = writer.table
        self.head, self.rows = table.head, list(table.rows)
        self.sentinels = tuple(table.sentinels)
        self.block_sentinels = table.block_sentinels
        self.done = {(row.subject, row.round) for row in self.rows if isinstance(row, BlockRow | NetworkRow)}
        self.failed = {
            subject
            for subject, reason in table.failures.items()
            if not (settings.retry_failures or tells_of_shortage(reason))
        }
        sentinels = (row for row in self.rows if isinstance(row, SentinelRow | BlockSentinelRow))
        self.before_s = max((row.elapsed_s for row in sentinels), default=0.0)
        self._sentinel_rounds = Counter(
            (row.device_index, row.subject) for row in self.rows if isinstance(row, SentinelRow | BlockSentinelRow)
        )
        self.start = time.monotonic()
        self.end = math.inf  # the end of the time set by `limit`
        self._lock = threading.Lock()
        self._note = ""  # about the device, shown with the progress

    @property
    def elapsed_s(self) -> float:
        """The seconds of profiling over all runs for this table."""
        return self.before_s + time.monotonic() - self.start

    @property
    def left_s(self) -> float:
        """The seconds until the limit; infinite without a limit, negative after it."""
        return self.end - time.monotonic()

    def limit(self, minutes: float | None) -> None:
        """Limits all runs for this table together to ``minutes``; what is not measured by then is left out."""
        self.end = math.inf if minutes is None else self.start + 60 * minutes - self.before_s

    def table(self) -> LatencyTable:
        """The table so far."""
        return LatencyTable(self.head, tuple(self.rows), str(self.writer.path))

    def measure_rounds(
        self,
        blocks: Sequence[BlockAt],
        between: Callable[[], None] = lambda: None,
        progress: Progress = silent,
        converting_share: float = 1.0,
    ) -> None:
        """Measures all missing rounds of ``blocks``, with the sentinels before each round and at the end.

        Only as many are measured as the remaining time allows; each round gets an equal share of it.

        Args:
            blocks: the blocks to measure.
            between: is called after each round.
            progress: is called after each converted or measured model.
            converting_share: the share of the remaining time for converting the blocks.

        Raises:
            DmaskError: if nothing can be measured on a device.
            StoppedError: if a signal was received.
        """
        self._try_out(blocks)
        self._convert([*self.sentinels, *self.block_sentinels, *blocks], converting_share, progress)
        converted = [block for block in blocks if self.converter.is_ready(block)]
        self._choose_block_sentinels(converted)
        reached: set[BlockAt] = set(converted)
        for round_ in range(self.settings.rounds):
            if self.left_s <= 0:
                break
            reached = self._measure_round(converted, reached, round_, progress)
            between()
        self._on_each(self._measure_sentinels)
        for device in self.devices:
            device.settle()
            device.unload(block for block in blocks if block not in self.block_sentinels)

    def _choose_block_sentinels(self, blocks: Sequence[BlockAt]) -> None:
        """Chooses some of the first blocks of a new table, unless measuring them repeatedly takes too much time.

        A table that was begun without block sentinels has one clock for blocks and networks, and continues with it.
        """
        if self.block_sentinels or any(isinstance(row, BlockRow) for row in self.rows):
            return
        found = block_sentinels_of(blocks)
        request_s = max(device.request_seconds for device in self.devices)
        if len(found) * (self.settings.rounds + 1) * request_s <= BLOCK_SENTINELS_SHARE * self.left_s:
            self.block_sentinels = found

    def measure_networks(self, due: Sequence[tuple[ChildSpec, int]], share: float, progress: Progress = silent) -> None:
        """Measures rounds of whole networks, unless they were measured before.

        Args:
            due: the networks and their rounds.
            share: the share of the remaining time that this may take.
            progress: is called after each converted network.

        Raises:
            DmaskError: if nothing can be measured on a device.
            StoppedError: if a signal was received.
        """
        end = time.monotonic() + share * max(0.0, self.left_s)
        self._convert([child for child, _ in due], share, progress)
        converted = [(child, round_) for child, round_ in due if self.converter.is_ready(child)]

        def measure_share(device: MeasuredDevice) -> None:
            ready = []
            for child, round_ in self._share(converted, device):
                if time.monotonic() < end and device.load(child):
                    ready.append((child, round_))
            # Sentinels before and after them, and between many of them, because networks drift differently from blocks.
            for start in range(0, len(ready), NETWORKS_BETWEEN_SENTINELS):
                self._measure_sentinels(device, with_blocks=False)
                for child, round_ in ready[start : start + NETWORKS_BETWEEN_SENTINELS]:
                    if self.left_s > 0:
                        self._measure(device, child, round_)
            if ready:
                self._measure_sentinels(device, with_blocks=False)

        self._on_each(measure_share)

    def _try_out(self, blocks: Sequence[BlockAt]) -> None:
        """Detects at once if nothing can be measured, before all blocks are converted and failures are recorded."""
        by_kind: dict[str, list[Subject]] = defaultdict(list)
        for block in blocks:
            by_kind[block[0].kind].append(block)
        few = [block for same in itertools.zip_longest(*by_kind.values()) for block in same if block is not None]
        subjects = few[:MAX_FAILURES]
        if any(isinstance(subject, tuple) for subject, _ in self.done) or not blocks:
            subjects += self.sentinels
        self.converter.start(len(blocks))
        self._on_each(lambda device: device.try_out(subjects))

    def _convert(self, subjects: Sequence[Subject], share: float, progress: Progress) -> None:
        """Converts as many of ``subjects`` as a share of the remaining time allows, with time left to measure them."""
        end, count = time.monotonic() + share * max(0.0, self.left_s), 0
        request_s = max(device.request_seconds for device in self.devices)
        measured_s = (self.settings.rounds + 1) * request_s / len(self.devices)  # including the loading
        num_sentinels = len(self.sentinels) + len(self.block_sentinels)
        end -= (self.settings.rounds + 1) * (num_sentinels + 1) * request_s

        def may_start(subject: Subject) -> bool:
            nonlocal count
            count += 1
            return time.monotonic() + self.converter.expected_seconds(subject) + count * measured_s < end

        self.converter.convert_all(subjects, progress, may_start)

    def _measure_round(
        self, blocks: Sequence[BlockAt], among: set[BlockAt], round_: int, progress: Progress
    ) -> set[BlockAt]:
        """Measures one round of the ``blocks`` that are ``among`` those of earlier rounds; returns the measured
        ones."""
        begin, count, reached = time.monotonic(), 0, set[BlockAt]()
        seconds = max(0.0, self.left_s) / (self.settings.rounds - round_)
        loaded_until, end = begin + LOADING_SHARE * seconds, begin + seconds

        def measure_share(device: MeasuredDevice) -> None:
            nonlocal count
            ready = []  # all are loaded first, because loading evicts caches
            for block in self._share(blocks, device):
                if block in among and time.monotonic() < loaded_until and device.load(block):
                    ready.append(block)
            self._measure_sentinels(device)
            for block in ready:
                if time.monotonic() >= end:
                    return
                self._measure(device, block, round_)
                with self._lock:
                    reached.add(block)
                    count += 1
                    progress(f"measure round {round_ + 1}/{self.settings.rounds}", count, len(among), self._note)

        self._on_each(measure_share)
        return reached

    def _share(self, items: Sequence[T], device: MeasuredDevice) -> Sequence[T]:
        return items[device.index :: len(self.devices)]

    def _on_each(self, action: Callable[[MeasuredDevice], None]) -> None:
        """Runs ``action`` on every device at the same time."""
        if len(self.devices) == 1:
            action(self.devices[0])
            return
        with ThreadPoolExecutor(len(self.devices)) as pool:
            for task in [pool.submit(action, device) for device in self.devices]:
                task.result()

    def _measure(self, device: MeasuredDevice, subject: Subject, round_: int) -> None:
        """Measures one round, unless it was measured before."""
        if (subject, round_) not in self.done:
            network = isinstance(subject, ChildSpec)
            seconds = self.settings.seconds_per_network if network else self.settings.seconds_per_block
            samples = device.sample(subject, seconds)
            if samples is not None:
                common = {"round": round_, "at": now(), "device_index": device.index, **samples._asdict()}
                if isinstance(subject, ChildSpec):
                    self.add(NetworkRow(child=subject, **common))
                else:
                    self.add(BlockRow(block=subject[0], in_size=subject[1], **common))
                self.done.add((subject, round_))
                self.failed.discard(subject)
        check_stopped("profiling")

    def _measure_sentinels(self, device: MeasuredDevice, with_blocks: bool = True) -> None:
        """Measures one round of each sentinel network and each sentinel block, and the state of the device."""
        conditions = device.conditions()
        if conditions is not None:
            self._note = THERMAL_UNKNOWN if conditions.thermal_status is None else self._note
            self.add(ConditionsRow(at=now(), device_index=device.index, **conditions._asdict()))
        networks = [child for child in self.sentinels if device.load(child)]
        blocks = [block for block in self.block_sentinels if with_blocks and device.load(block)]
        for child in networks[:1]:
            self._note_shares(device, child)
            device.wake(child)
        seconds = self.settings.seconds_per_block
        sentinels: list[tuple[Subject, float]] = [(child, SENTINEL_TIMES * seconds) for child in networks]
        for subject, seconds in [*sentinels, *((block, seconds) for block in blocks)]:
            samples = device.sample(subject, seconds)
            if samples is not None:
                self._add_sentinel(device, subject, samples)

    def _add_sentinel(self, device: MeasuredDevice, subject: Subject, samples: Samples) -> None:
        round_ = self._sentinel_rounds[device.index, subject]
        self._sentinel_rounds[device.index, subject] += 1
        common = {"round": round_, "at": now(), "device_index": device.index, **samples._asdict()}
        elapsed_s = round(self.elapsed_s, 3)
        if isinstance(subject, ChildSpec):
            self.add(SentinelRow(child=subject, elapsed_s=elapsed_s, **common))
        else:
            self.add(BlockSentinelRow(block=subject[0], in_size=subject[1], elapsed_s=elapsed_s, **common))

    def _note_shares(self, device: MeasuredDevice, child: ChildSpec) -> None:
        """Records the runtime's estimate for a network's operations, once."""
        if any(isinstance(row, SharesRow) for row in self.rows):
            return
        shares = device.shares(child)
        if shares:
            self.add(SharesRow(at=now(), child=child, shares=tuple(sorted(shares.items()))))

    def _fail(self, subject: Subject, error: DmaskError) -> None:
        self.failed.add(subject)
        reason = describe_failure(error)
        if isinstance(subject, ChildSpec):
            self.add(FailureRow(at=now(), child=subject, reason=reason))
        else:
            self.add(FailureRow(at=now(), block=subject[0], in_size=subject[1], reason=reason))

    def add(self, row: TableRow) -> None:
        """Adds a row to the table."""
        with self._lock:
            self.writer.add(row)
            self.rows.append(row)
