"""How a device is reached."""

from __future__ import annotations

from pydantic import Field

from dmask_mobile.records.base import Record


class DeviceOptions(Record):
    """How a device is reached, and what on it runs models.

    ``at``: ``local``, ``ssh:HOST`` or ``adb[:SERIAL]``; ``python``: the command there that is a Python with the
    runtime (default: this Python, elsewhere ``python3``); ``runner``: the path here of a native benchmark program for
    a phone, ``runner_flags``: passed on to it; ``cores``: those to stay on (default: the last ones, as many as threads;
    on a phone the fastest); ``functional``: the device is an emulator, its times mean nothing.
    """

    at: str = "local"
    python: str = ""
    runner: str = ""
    runner_flags: tuple[str, ...] = ()
    cores: tuple[int, ...] = Field(default=(), description="numbers of cores")
    functional: bool = False
