"""Measuring what it is told to into one table, on one device or on several identical ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import Field, PositiveFloat, PositiveInt

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped, stop_signals
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record
from dmask_mobile.records.child import ChildSpec
from latency_tables.conversion.converter import ConversionError, Converter, converter_for
from latency_tables.devices.device import Session
from latency_tables.devices.device_options_store import save_device_options
from latency_tables.profiling.measured_device import MeasuredDevice
from latency_tables.profiling.setup import Setup
from latency_tables.table.rows import (
    BlockAt,
    BlockRow,
    ConditionsRow,
    FailureRow,
    NetworkRow,
    SentinelRow,
    SharesRow,
    Subject,
    TableRow,
)
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter

T = TypeVar("T")


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


@contextmanager
def measuring_into(path: Path, setup: Setup, settings: ProfileSettings) -> Iterator[Measuring]:
    """The table locked, the devices ready, signals noted.

    Raises:
        DmaskError: when ``path`` is a table of another device, runtime or setting, or is being written to.
    """
    with ExitStack() as stack:
        # Before the devices: a signal must not come between their preparation and the block that undoes it.
        stack.enter_context(stop_signals())
        head = setup.head()
        converter = stack.enter_context(converter_for(setup.runtime, setup.precision))
        sessions = [stack.enter_context(device.open(*setup.how_to_run)) for device in setup.devices]
        writer = stack.enter_context(TableWriter(path, head))  # last: what a device refuses must not begin a table
        save_device_options(writer.table.head, setup.reached)
        yield Measuring(sessions, settings, converter, writer)


class Measuring:
    """Measures what it is told to into one table, and keeps the table's rows at hand.

    Args:
        sessions: of identical devices, which share the work.
        settings: how thoroughly.
        converter: makes the models.
        writer: of the table.
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
        self.done = {(row.subject, row.round) for row in self.rows if isinstance(row, BlockRow | NetworkRow)}
        self.before_s = max((row.elapsed_s for row in self.rows if isinstance(row, SentinelRow)), default=0.0)
        self.start = time.monotonic()
        self._lock = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds of profiling over all runs of this table."""
        return self.before_s + time.monotonic() - self.start

    def table(self) -> LatencyTable:
        """What there is so far."""
        return LatencyTable(self.head, tuple(self.rows), str(self.writer.path))

    def convert(self, subjects: Iterable[Subject], progress: Progress = silent) -> None:
        """Makes the models ready that are to be measured.

        Raises:
            StoppedError: when a signal came.
        """

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            progress(stage, done, total, note)
            check_stopped("profiling")

        self.converter.convert_all(tuple(subjects), tell)

    def measure_rounds(
        self,
        blocks: Sequence[BlockAt],
        between: Callable[[], None] = lambda: None,
        progress: Progress = silent,
    ) -> None:
        """All rounds of ``blocks`` that are missing, with the sentinels before each and at the end.

        Raises:
            StoppedError: when a signal came.
        """
        self.convert([*self.sentinels, *blocks], progress)
        count = 0

        def measure_share(device: MeasuredDevice, round_: int) -> None:
            nonlocal count
            # All are loaded first: loading cools the caches.
            ready = [block for block in self._share(blocks, device) if device.load(block)]
            self._measure_sentinels(device)
            for block in ready:
                self._measure(device, block, round_)
                with self._lock:
                    count += 1
                    progress(f"measure round {round_ + 1}/{self.settings.rounds}", count, len(blocks))

        for round_ in range(self.settings.rounds):
            count = 0
            self._on_each(lambda device, round_=round_: measure_share(device, round_))  # type: ignore[misc]
            between()
        self._on_each(self._measure_sentinels)
        for device in self.devices:
            device.unload(blocks)

    def measure_networks(self, due: Sequence[tuple[ChildSpec, int]], progress: Progress = silent) -> None:
        """Rounds of whole networks, unless they were measured before.

        Raises:
            StoppedError: when a signal came.
        """
        self.convert([child for child, _ in due], progress)

        def measure_share(device: MeasuredDevice) -> None:
            ready = [(child, round_) for child, round_ in self._share(due, device) if device.load(child)]
            for child, round_ in ready:
                self._measure(device, child, round_)

        self._on_each(measure_share)

    def _share(self, items: Sequence[T], device: MeasuredDevice) -> Sequence[T]:
        return items[device.index :: len(self.devices)]

    def _on_each(self, action: Callable[[MeasuredDevice], None]) -> None:
        """``action`` on every device at the same time."""
        if len(self.devices) == 1:
            action(self.devices[0])
            return
        with ThreadPoolExecutor(len(self.devices)) as pool:
            for task in [pool.submit(action, device) for device in self.devices]:
                task.result()

    def _measure(self, device: MeasuredDevice, subject: Subject, round_: int) -> None:
        """One round, unless it was measured before."""
        if (subject, round_) not in self.done:
            network = isinstance(subject, ChildSpec)
            seconds = self.settings.seconds_per_network if network else self.settings.seconds_per_block
            samples = device.sample(subject, seconds)
            if samples is not None:
                common = {"round": round_, "at": now(), "device_index": device.index, **samples._asdict()}
                if isinstance(subject, ChildSpec):
                    self._add(NetworkRow(child=subject, **common))
                else:
                    self._add(BlockRow(block=subject[0], in_size=subject[1], **common))
                self.done.add((subject, round_))
        check_stopped("profiling")

    def _measure_sentinels(self, device: MeasuredDevice) -> None:
        """One round of each sentinel, and what the device says of itself."""
        conditions = device.conditions()
        if conditions is not None:
            self._add(ConditionsRow(at=now(), device_index=device.index, **conditions._asdict()))
        ours = sum(isinstance(row, SentinelRow) and row.device_index == device.index for row in self.rows)
        ready = [child for child in self.sentinels if device.load(child)]
        for child in ready[:1]:
            self._note_shares(device, child)
            device.wake(child)
        for child in ready:
            samples = device.sample(child, self.settings.seconds_per_block)
            if samples is not None:
                common = {
                    "round": ours // len(self.sentinels),
                    "at": now(),
                    "device_index": device.index,
                    **samples._asdict(),
                }
                self._add(SentinelRow(child=child, elapsed_s=round(self.elapsed_s, 3), **common))

    def _note_shares(self, device: MeasuredDevice, child: ChildSpec) -> None:
        """What the runtime estimates of a network's operations, once."""
        if any(isinstance(row, SharesRow) for row in self.rows):
            return
        shares = device.shares(child)
        if shares:
            self._add(SharesRow(at=now(), child=child, shares=tuple(sorted(shares.items()))))

    def _fail(self, subject: Subject, error: DmaskError) -> None:
        named = error.problem if isinstance(error, ConversionError) else f"{type(error).__name__}: {error}"
        reason = " ".join(named.split())
        if isinstance(subject, ChildSpec):
            self._add(FailureRow(at=now(), child=subject, reason=reason))
        else:
            self._add(FailureRow(at=now(), block=subject[0], in_size=subject[1], reason=reason))

    def _add(self, row: TableRow) -> None:
        with self._lock:
            self.writer.add(row)
            self.rows.append(row)
