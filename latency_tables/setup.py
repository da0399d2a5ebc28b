"""Where and with what to measure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.nets.build import build
from dmask_mobile.records.artifact import Preprocessing
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable
from latency_tables.devices.device import Device
from latency_tables.devices.local import LocalDevice
from latency_tables.rows import Subject, TableHead
from latency_tables.runtimes.registry import runtime_named
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table import LatencyTable


class Setup(NamedTuple):
    """A device, a runtime and its number of threads."""

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
            created=now(),
        )

    def convert(self, subject: Subject) -> bytes:
        """The model of a block or of a whole network as it is deployed."""
        if isinstance(subject, ChildSpec):
            halves = Preprocessing(mean=(0.5,) * subject.in_channels, std=(0.25,) * subject.in_channels)
            module = Deployable(build(subject), halves)
            return self.runtime.convert(module, subject.input_shape)
        block, in_size = subject
        return self.runtime.convert(build_block(block), (1, block.in_width, in_size, in_size))


def setup_of(table: LatencyTable) -> Setup:
    """The set-up on this machine that measures like ``table``.

    Raises:
        DmaskError: when this machine, the runtime's version or a setting differs.
    """
    setup = Setup(LocalDevice(), runtime_named(table.head.runtime), table.head.threads)
    table.head.check_same(setup.head(), f"table '{table.source}'")
    return setup


def now() -> str:
    """The current time, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
