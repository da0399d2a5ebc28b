"""Profiling: the blocks and networks of a plan, measured in interleaved rounds into a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import PositiveFloat, PositiveInt

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.nets.build import build
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.base import Record
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable
from latency_tables.devices.device import Device, Loaded
from latency_tables.plan import BlockAt, Plan
from latency_tables.runtimes.runtime import Runtime
from latency_tables.statistics import Summary, summarize
from latency_tables.table import BlockRow, LatencyTable, NetworkRow, TableHead, TableWriter


class ProfileSettings(Record):
    """How thoroughly to measure. Rounds lie apart in time, so that a disturbance meets one round of many blocks."""

    rounds: PositiveInt = 5
    seconds_per_block: PositiveFloat = 0.02
    seconds_per_network: PositiveFloat = 0.1
    threads: PositiveInt = 1


class Setup(NamedTuple):
    """Where and with what to measure."""

    device: Device
    runtime: Runtime
    threads: int

    def head(self) -> TableHead:
        """The head of a table measured with this set-up, now."""
        return TableHead(
            **self.device.describe()._asdict(),
            runtime=self.runtime.name,
            runtime_version=self.runtime.version(),
            threads=self.threads,
            created=_now(),
        )

    def convert(self, subject: BlockAt | ChildSpec) -> bytes:
        """The model of a block or of a whole network as it is deployed."""
        if isinstance(subject, ChildSpec):
            module = Deployable(build(subject), [0.5] * subject.in_channels, [0.25] * subject.in_channels)
            return self.runtime.convert(module, subject.input_shape)
        block, in_size = subject
        return self.runtime.convert(build_block(block), (1, block.in_width, in_size, in_size))


def profile_plan(
    plan: Plan, setup: Setup, settings: ProfileSettings, path: Path, progress: Progress = silent
) -> LatencyTable:
    """Measures what ``plan`` asks for and ``path`` does not yet hold; returns the finished table.

    Raises:
        DmaskError: when ``path`` is a table of another device, runtime or setting.
    """
    with TableWriter(path, setup.head()) as writer:
        if writer.dropped_line:
            progress("profile", 0, 1, "dropped a line that was cut off")
        done = {(_subject(row), row.round) for row in LatencyTable.read(path).rows}
        subjects = [
            subject for subject in _interleaved(plan) if any((subject, r) not in done for r in range(settings.rounds))
        ]
        with ExitStack() as stack:
            loaded: dict[BlockAt | ChildSpec, Loaded] = {}
            for number, subject in enumerate(subjects, start=1):
                model = setup.convert(subject)
                loaded[subject] = stack.enter_context(setup.device.load(setup.runtime, model, setup.threads))
                progress("convert", number, len(subjects))
            for round_ in range(settings.rounds):
                missing = [subject for subject in subjects if (subject, round_) not in done]
                for number, subject in enumerate(missing, start=1):
                    writer.add(_measure(subject, loaded[subject], round_, settings))
                    progress(f"measure round {round_ + 1}/{settings.rounds}", number, len(missing))
    return LatencyTable.read(path)


def _measure(
    subject: BlockAt | ChildSpec, loaded: Loaded, round_: int, settings: ProfileSettings
) -> BlockRow | NetworkRow:
    whole = isinstance(subject, ChildSpec)
    samples = loaded.sample(settings.seconds_per_network if whole else settings.seconds_per_block)
    common = {"round": round_, "at": _now(), "wall_ms": _rounded(samples.wall_ms), "cpu_ms": _rounded(samples.cpu_ms)}
    if isinstance(subject, ChildSpec):
        return NetworkRow(child=subject, **common)
    return BlockRow(block=subject[0], in_size=subject[1], **common)


def _interleaved(plan: Plan) -> Iterator[BlockAt | ChildSpec]:
    """Networks spread evenly among the blocks: both meet the same state of the machine."""
    every = max(1, len(plan.blocks) // max(1, len(plan.networks)))
    networks = iter(plan.networks)
    for number, block in enumerate(plan.blocks):
        if number % every == 0:
            yield from (child for child in [next(networks, None)] if child is not None)
        yield block
    yield from networks


def _subject(row: BlockRow | NetworkRow) -> BlockAt | ChildSpec:
    return row.child if isinstance(row, NetworkRow) else (row.block, row.in_size)


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values)  # 10 ns: below any clock's resolution


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Remeasured(NamedTuple):
    """A model measured now, and how the device stands against a table's networks."""

    summary: Summary
    drift: float


def remeasure(
    model: bytes, sentinels: dict[ChildSpec, Summary], setup: Setup, rounds: int, progress: Progress = silent
) -> Remeasured:
    """Latency of ``model`` now, in rounds that alternate with a table's sentinels.

    Args:
        model: a model file of ``setup.runtime``.
        sentinels: whole networks and what the table says of them; ``drift`` is the median of now / then - 1.
        setup: the table's device, runtime and threads.
        rounds: how often to go round.
        progress: told after each round.
    """
    with ExitStack() as stack:
        models = [model, *(setup.convert(child) for child in sentinels)]
        ready = [stack.enter_context(setup.device.load(setup.runtime, m, setup.threads)) for m in models]
        taken: list[list[tuple[float, ...]]] = [[] for _ in ready]
        for round_ in range(rounds):
            for samples, loaded in zip(taken, ready, strict=True):
                samples.append(loaded.sample(ProfileSettings().seconds_per_network).wall_ms)
            progress("measure", round_ + 1, rounds)
    now = [summarize(samples) for samples in taken]
    ratios = sorted(n.typical_ms / then.typical_ms - 1 for n, then in zip(now[1:], sentinels.values(), strict=True))
    return Remeasured(now[0], ratios[len(ratios) // 2] if ratios else 0.0)
