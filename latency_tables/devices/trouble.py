"""Problems of the device that no model causes: killed processes, a full disk, no memory."""

from __future__ import annotations

from latency_tables.devices import agent
from latency_tables.devices.device import DeviceTroubleError

AGAIN = "what was measured is kept, and the same command continues"


def killed_twice(name: str) -> DeviceTroubleError:
    """The error for a process that was killed by ``name``, and killed again after a new start."""
    return DeviceTroubleError(
        f"the process that runs the models was killed twice from outside ({name}), for example by a system without"
        " free memory",
        f"close other programs there; {AGAIN}",
    )


def lacking_in(said: str, cause: str = "") -> DeviceTroubleError | None:
    """The error for a shortage on a device; None if neither ``cause`` nor the output ``said`` shows one.

    ``cause``: the cause in the answer of an agent.
    """
    lines = [line.strip() for line in said.splitlines() if agent.trouble_in(line)]  # type: ignore[no-untyped-call]
    name = cause or (agent.trouble_in(lines[-1]) if lines else "")  # type: ignore[no-untyped-call]
    if name not in agent.TROUBLES:
        return None
    problem = f"the device has no {agent.TROUBLES[name]} left: {(lines or [said])[-1]}"
    return DeviceTroubleError(problem, f"free some space there; {AGAIN}")
