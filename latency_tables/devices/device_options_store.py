"""Stores how this user reaches the devices of tables.

A table only names its device, because it may be untrusted, and these options determine which programs run here and on
devices. So they are stored with the user's state, by the digest of the table's head, which is the same for copies of
the table.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import platformdirs

from dmask_mobile.errors import DmaskError
from latency_tables.devices.options import DeviceOptions
from latency_tables.table.rows import TableHead


def save_device_options(head: TableHead, options: DeviceOptions) -> None:
    """Stores how the device of a table is reached."""
    options.write(_path(head))


def load_device_options(head: TableHead, source: str, at: str | None = None) -> DeviceOptions:
    """How the device of a table is reached; ``at``: how it is reached now, if this has changed.

    Raises:
        DmaskError: if this user has not measured into the table, and it was not measured with this machine's Python.
    """
    path = _path(head)
    if path.exists():
        known = DeviceOptions.read(path)
        return known if at is None else known.model_copy(update={"at": at})
    if at is None and head.reached_at != "local":
        raise DmaskError(
            f"{source} was measured on '{head.reached_at}', but you have not measured into this table on that device",
            "if you trust that device, profile it with the options of the table: dmask profile SPACE --device"
            f" {shlex.quote(head.reached_at)} -o TABLE",
        )
    return DeviceOptions(at="local" if at is None else at, cores=head.pinned_cores, emulated=head.emulated)


def _path(head: TableHead) -> Path:
    return platformdirs.user_state_path("dmask-mobile") / "devices" / f"{head.digest()}.json"
