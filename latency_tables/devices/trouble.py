"""What is the device's trouble and no model's fault: killed processes, a full disk, no memory."""

from __future__ import annotations

from latency_tables.devices import agent
from latency_tables.devices.device import DeviceTroubleError

AGAIN = "what was measured is kept, and the same command continues"


def killed_twice(name: str) -> DeviceTroubleError:
    """The error for a process that was killed by ``name``, and again when it was started again."""
    return DeviceTroubleError(
        f"the process that runs the models was killed twice from outside ({name}), for example by a system without"
        " free memory",
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
