"""Makes devices from their options."""

from __future__ import annotations

from collections.abc import Callable

from dmask_mobile.errors import DmaskError
from latency_tables.devices.adb import AdbDevice
from latency_tables.devices.device import Device
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.ssh import SshDevice

DEVICES: dict[str, Callable[[DeviceOptions], Device]] = {"local": LocalDevice, "ssh": SshDevice, "adb": AdbDevice}


def device_at(options: DeviceOptions) -> Device:
    """The device for ``options``.

    Raises:
        DmaskError: for anything but ``local``, ``ssh:HOST`` and ``adb[:SERIAL]``, or for an option that the device
            lacks.
    """
    kind, colon, name = options.at.partition(":")
    if kind not in DEVICES or (kind == "local" and colon) or (kind == "ssh" and not name) or (colon and not name):
        raise DmaskError(f"no device '{options.at}'", "give local, ssh:HOST, adb or adb:SERIAL")
    if options.runner and kind != "adb":
        raise DmaskError(f"a native runner is only for phones, got --runner for '{options.at}'", "leave it out")
    return DEVICES[kind](options)
