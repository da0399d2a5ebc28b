"""`DeviceOptions`: how a device is reached."""

from __future__ import annotations

import shlex
from typing import ClassVar

from pydantic import field_validator

from dmask_mobile.records.base import FileRecord


class DeviceOptions(FileRecord):
    """How a device is reached, and which program on it runs models.

    ``at``: ``local``, ``ssh:HOST`` or ``adb[:SERIAL]``; ``python``: the command that starts a Python with the runtime
    there (default: this Python; ``python3`` on other machines). ``runner``: the path on this machine of a native
    benchmark program for a phone; ``runner_flags``: flags that are passed to it. ``cores``: the cores to use (default:
    the last ones, as many as threads; on a phone the fastest). ``emulated``: the device is an emulator, whose times are
    meaningless.
    """

    file_format: ClassVar[str] = "dmask-device"

    at: str = "local"
    python: str = ""
    runner: str = ""
    runner_flags: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()
    emulated: bool = False

    @field_validator("python")
    @classmethod
    def _check_words(cls, python: str) -> str:
        shlex.split(python)  # raises ValueError for an unclosed quotation mark
        return python
