"""What is the device's trouble and no model's fault: killed processes, a full disk, no memory."""

from __future__ import annotations

import signal

from latency_tables.devices import agent
from latency_tables.devices.device import DeviceTroubleError

AGAIN = "what was measured is kept, and the same command goes on"
OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # no runtime crashes by these


def killed_by(status: int) -> str:
    """The name of the signal from outside that ended a process; empty when it ended in another way.

    ``status``: negative as `subprocess` tells it, or 128 and the signal's number as a shell does.
    """
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in OUTSIDE else ""


def killed_twice(name: str) -> DeviceTroubleError:
    """The error for a process that was killed by ``name``, and again when it was started again."""
    return DeviceTroubleError(
        f"the process that runs the models was killed twice from outside ({name}), as by a system that is short of"
        " memory",
        f"close other programs there; {AGAIN}",
    )


def lacking_in(said: str, cause: str = "") -> DeviceTroubleError | None:
    """The error for what a device is short of; None when neither ``cause`` nor what a program ``said`` tells of it.

    ``cause``: as an agent gives it.
    """
    lines = [line.strip() for line in said.splitlines() if agent.trouble_in(line)]  # type: ignore[no-untyped-call]
    name = cause or (agent.trouble_in(lines[-1]) if lines else "")  # type: ignore[no-untyped-call]
    if name not in agent.TROUBLES:
        return None
    problem = f"the device has no {agent.TROUBLES[name]} left: {(lines or [said])[-1]}"
    return DeviceTroubleError(problem, f"make room there; {AGAIN}")
