"""Devices that can be measured on, and whether the installation works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import Words, as_words
from dmask_mobile.cost_names import our_package
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from latency_tables.diagnosis.discovery import Attached
    from latency_tables.diagnosis.doctor import Finding


def list_devices(hosts: Words = (), python: str = "") -> Attached:
    """This machine, the phones that adb sees, and ``hosts``; what each can run, and what is missing for the rest.

    A device that cannot be used is in the list too, with the reason and what to do. Nothing is measured.

    Args:
        hosts: machines reached by ssh, each as ``ssh:HOST``.
        python: the command on them that is a Python with the runtimes.

    Raises:
        DmaskError: for a host that is not ``ssh:HOST``.
    """
    our_package("latency_tables")
    from latency_tables.diagnosis.discovery import attached, named_hosts

    return attached(named_hosts(as_words(hosts), python))


def examine_installation(hosts: Words = (), python: str = "", progress: Progress = silent) -> tuple[Finding, ...]:
    """What works here, on the phones that are attached and on ``hosts``, and how to mend the rest.

    Every runtime that is installed converts a block and runs it, which takes half a minute in all.

    Args:
        hosts: machines reached by ssh, each as ``ssh:HOST``.
        python: the command on them that is a Python with the runtimes.
        progress: told before each check.

    Raises:
        DmaskError: for a host that is not ``ssh:HOST``.
    """
    our_package("latency_tables")
    from latency_tables.diagnosis.discovery import named_hosts
    from latency_tables.diagnosis.doctor import examine

    return examine(named_hosts(as_words(hosts), python), progress)
