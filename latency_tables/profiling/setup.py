"""`Setup`: the devices, the runtime and its settings for measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision
from export.formats.registry import FORMATS
from latency_tables.conversion.subjects import by_structure
from latency_tables.devices import agent
from latency_tables.devices.device import Device
from latency_tables.devices.device_options_store import load_device_options
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.registry import device_at
from latency_tables.devices.runners import native_runner
from latency_tables.runtimes.installation import install_command, missing_converters
from latency_tables.runtimes.registry import runtime_named
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import TableHead
from latency_tables.table.table import LatencyTable

BY_STRUCTURE = "one conversion for each structure of blocks, then with other sizes"


class Setup(NamedTuple):
    """Devices, a runtime and its settings. Several devices must be identical and share the work.

    ``reached``: how the first device is reached, stored for later measurements.
    """

    devices: tuple[Device, ...]
    runtime: Runtime
    threads: int = 1
    precision: Precision = "fp32"
    delegate: str = "cpu"
    reached: DeviceOptions = DeviceOptions()

    def head(self) -> TableHead:
        """The head of a table that is measured with this set-up now.

        Raises:
            DmaskError: if a device is absent or lacks the runtime, or two devices differ.
        """
        first, *others = (device.describe(self.runtime) for device in self.devices)
        for number, other in enumerate(others, start=2):
            for name, ours, theirs in zip(first._fields, first, other, strict=True):
                if ours != theirs:
                    raise DmaskError(
                        f"devices that share a table must be identical: {name} of the first is '{ours}', but of number"
                        f" {number} it is '{theirs}'",
                        "make a separate table for each",
                    )
        self._check_cores(first.cores)
        return TableHead(
            **first._replace(emulated=first.emulated or self.reached.emulated)._asdict(),
            runtime=self.runtime.name,
            precision=self.precision,
            delegate=self.delegate,
            threads=self.threads,
            pinned_cores=self.reached.cores,
            created=now(),
            reached_at=self.reached.at,
            block_models=BY_STRUCTURE if by_structure(self.runtime.name, self.precision) else "",
        )

    @property
    def how_to_run(self) -> tuple[Runtime, int, str]:
        """The arguments for opening a device."""
        return self.runtime, self.threads, self.delegate

    def _check_cores(self, cores: int) -> None:
        """Checks that every thread has its own core."""
        pinned = self.reached.cores
        if pinned and pinned[-1] >= cores:
            raise DmaskError(
                f"the device has the cores 0 to {cores - 1}, not {pinned[-1]}", "choose others with --cores"
            )
        if self.threads > (len(pinned) or cores):
            raise DmaskError(
                f"{self.threads} threads on {len(pinned) or cores} cores would wait for each other",
                "use fewer --threads or more --cores",
            )


def setup_for(
    devices: Sequence[DeviceOptions],
    runtime: str,
    threads: int = 1,
    precision: Precision = "fp32",
    delegate: str = "cpu",
) -> Setup:
    """The set-up for these options; no device is contacted.

    Raises:
        DmaskError: for an unknown device or runtime, a precision or delegate that the runtime does not support, or if
            its models cannot be converted here.
    """
    found = runtime_named(runtime)
    refused = FORMATS[found.model_format].refused
    if precision in refused:
        raise DmaskError(f"{runtime} has no {precision}: {refused[precision]}", "choose another precision")
    if delegate not in found.delegates:
        raise DmaskError(f"{runtime} has no delegate '{delegate}'", f"choose one of {', '.join(found.delegates)}")
    if missing := missing_converters(found):
        raise DmaskError(
            f"the models of {runtime} are made by {missing[0]}, which is not installed here", install_command(found)
        )
    names = [options.at for options in devices]
    if len(set(names)) < len(names):
        raise DmaskError(f"a device is given twice: {', '.join(names)}", "give each device once")
    if any(options.model_copy(update={"at": devices[0].at}) != devices[0] for options in devices):
        raise DmaskError("devices that share a table must have the same options", "give all of them the same options")
    if devices[0].runner:
        native = native_runner(devices[0].runner, devices[0].runner_flags, found)
        native.delegate_flags(delegate)
        native.check_precision(precision, delegate)
    elif delegate not in agent.DELEGATES.get(runtime, ("cpu",)):
        raise DmaskError(
            f"{runtime} runs on the CPU from Python, not on '{delegate}'",
            "use a phone and the runtime's native program with --runner, or --delegate cpu",
        )
    return Setup(tuple(map(device_at, devices)), found, threads, precision, delegate, devices[0])


def setup_of(table: LatencyTable, at: str | None = None) -> Setup:
    """The set-up with the settings of ``table``, on its device or an identical one.

    Args:
        table: the table.
        at: how that device is reached now, if this has changed.

    Raises:
        DmaskError: if the device is absent, or the device, its runtime version or a setting differs.
    """
    head = table.head
    reached = load_device_options(head, f"table '{table.source}'", at)
    setup = setup_for([reached], head.runtime, head.threads, head.precision, head.delegate)
    head.check_same(setup.head(), f"table '{table.source}'")
    return setup
