"""Lists the devices for measurements, and checks the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import Words, as_words
from dmask_mobile.cost_names import our_package
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from latency_tables.diagnosis.discovery import Attached
    from latency_tables.diagnosis.doctor import Finding


def list_devices(hosts: Words = (), python: str = "") -> Attached:
    """This machine, the phones connected by adb, and ``hosts``; what each of them can run, and what is missing.

    A device that cannot be used is also in the list, with the reason and a remedy. Nothing is measured.

    Args:
        hosts: machines reached by ssh, each as ``ssh:HOST``.
        python: the command that starts a Python with the runtimes on these machines.

    Raises:
        DmaskError: for a host that is not ``ssh:HOST``.
    """
    our_package("latency_tables")
    from latency_tables.diagnosis.discovery import attached, named_hosts

    return attached(named_hosts(as_words(hosts), python))


def examine_installation(hosts: Words = (), python: str = "", progress: Progress = silent) -> tuple[Finding, ...]:
    """What works on this machine, on connected phones and on ``hosts``, and how to fix what does not work.

    Every installed runtime converts a block and runs it; together this takes half a minute.

    Args:
        hosts: machines reached by ssh, each as ``ssh:HOST``.
        python: the command that starts a Python with the runtimes on these machines.
        progress: is called before each check.

    Raises:
        DmaskError: for a host that is not ``ssh:HOST``.
    """
    our_package("latency_tables")
    from latency_tables.diagnosis.discovery import named_hosts
    from latency_tables.diagnosis.doctor import examine

    return examine(named_hosts(as_words(hosts), python), progress)
