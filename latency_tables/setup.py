"""Where and with what to measure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision
from export.formats import FORMATS
from latency_tables.conversion import convert_subject
from latency_tables.devices.device import Device
from latency_tables.devices.known import recall
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.registry import device_at
from latency_tables.rows import Subject, TableHead
from latency_tables.runtimes.registry import runtime_named
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table import LatencyTable


class Setup(NamedTuple):
    """Devices, a runtime and how it runs. Several devices are identical ones that share the work.

    ``reached``: how the first device is reached, for whoever measures like this later.
    """

    devices: tuple[Device, ...]
    runtime: Runtime
    threads: int = 1
    precision: Precision = "fp32"
    delegate: str = "cpu"
    reached: DeviceOptions = DeviceOptions()

    def head(self) -> TableHead:
        """The head of a table measured with this set-up, now.

        Raises:
            DmaskError: when a device is absent or lacks the runtime, and when two of them differ.
        """
        heads = [
            TableHead(
                **device.describe(self.runtime)._asdict(),
                runtime=self.runtime.name,
                precision=self.precision,
                delegate=self.delegate,
                threads=self.threads,
                pinned_cores=self.reached.cores,
                created=now(),
                reached_at=self.reached.at,
            )
            for device in self.devices
        ]
        for number, head in enumerate(heads[1:], start=2):
            heads[0].check_same(
                head, f"devices that share a table must be identical, device {number} is not: the first"
            )
        functional = heads[0].functional or self.reached.functional
        return heads[0].model_copy(update={"functional": functional})

    def convert(self, subject: Subject) -> bytes:
        """The model of a block or of a whole network as it is deployed."""
        return convert_subject(subject, self.runtime, self.precision)


def setup_for(
    devices: Sequence[DeviceOptions],
    runtime: str,
    threads: int = 1,
    precision: Precision = "fp32",
    delegate: str = "cpu",
) -> Setup:
    """The set-up that options name; no device is touched.

    Raises:
        DmaskError: for an unknown device or runtime, and for a precision or delegate that the runtime has not.
    """
    found = runtime_named(runtime)
    refused = FORMATS[found.model_format].refused
    if precision in refused:
        raise DmaskError(f"{runtime} has no {precision}: {refused[precision]}", "choose another precision")
    if delegate not in found.delegates:
        raise DmaskError(f"{runtime} has no delegate '{delegate}'", f"choose one of {', '.join(found.delegates)}")
    names = [options.at for options in devices]
    if len(set(names)) < len(names):
        raise DmaskError(f"a device is named twice: {', '.join(names)}", "name each one once")
    return Setup(tuple(map(device_at, devices)), found, threads, precision, delegate, devices[0])


def setup_of(table: LatencyTable, at: str | None = None) -> Setup:
    """The set-up that measures like ``table``, on the device that it was made on or on one like that.

    Args:
        table: the table.
        at: where that device is now, if not where it was then.

    Raises:
        DmaskError: when the device is absent, and when it, its runtime's version or a setting differs.
    """
    head = table.head
    reached = recall(head, f"table '{table.source}'", at)
    setup = setup_for([reached], head.runtime, head.threads, head.precision, head.delegate)
    head.check_same(setup.head(), f"table '{table.source}'")
    return setup


def now() -> str:
    """The current time, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
