"""How a device is reached."""

from __future__ import annotations

import shlex
from typing import ClassVar

from pydantic import field_validator

from dmask_mobile.records.base import FileRecord


class DeviceOptions(FileRecord):
    """How a device is reached, and what on it runs models.

    ``at``: ``local``, ``ssh:HOST`` or ``adb[:SERIAL]``; ``python``: the command there that is a Python with the
    runtime (default: this Python, elsewhere ``python3``); ``runner``: the path here of a native benchmark program for
    a phone, ``runner_flags``: passed on to it; ``cores``: those to stay on (default: the last ones, as many as threads;
    on a phone the fastest); ``emulated``: the device is an emulator, its times are meaningless.
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
        shlex.split(python)  # raises ValueError for a quotation that does not end
        return python
