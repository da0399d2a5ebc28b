"""``dmask devices`` and ``dmask doctor``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dmask_mobile import api
from dmask_mobile.cli.console import cell, console, print_json
from dmask_mobile.cli.json_results import DoctorFinding, Findings
from dmask_mobile.cli.options import Json
from dmask_mobile.cli.progress import ShownProgress

if TYPE_CHECKING:
    from latency_tables.diagnosis.discovery import AttachedDevice, RuntimeState
    from latency_tables.diagnosis.doctor import Finding

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
Hosts = Annotated[list[str] | None, typer.Argument(metavar="ssh:HOST", help="Machines to examine by ssh.")]
HostPython = Annotated[str, typer.Option(help="The command that starts a Python with the runtimes on these machines.")]


def devices(hosts: Hosts = None, python: HostPython = "", as_json: Json = False) -> None:
    """List devices for measurements: this machine, phones connected by adb, and machines given as ssh:HOST.

    The list shows what each device can run and what is missing. A device that does not answer is listed with the
    reason.

    Example: dmask devices ssh:pi@raspberry --python venv/bin/python
    """
    found = api.list_devices(hosts or [], python)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for device in found.devices:
        console.print(device_table(device))
    for note in found.notes:
        console.print(note, style=STYLES["note"], soft_wrap=True)


def device_table(device: AttachedDevice) -> Table:
    """A table of a device, with a line for each runtime."""
    shown = Table(title=cell(f"--device {device.at}", "table.title"), title_justify="left", show_header=False)
    if device.problem:
        shown.add_row(cell("not ready", STYLES["problem"]), cell(f"{device.problem}; {device.fix}"))
        return shown
    shown.add_row("device", cell(", ".join(filter(None, (device.device, device.system, device.soc)))))
    if device.emulated:
        shown.add_row("emulator", "its times are meaningless")
    shown.add_row("cores", cores_in_words(device.cores, device.clocks_mhz))
    governor, turbo = device.governor and f"governor {device.governor}", device.turbo and f"turbo {device.turbo}"
    if known := ", ".join(filter(None, (device.cpu, governor, turbo))):
        shown.add_row("processor", cell(known))
    if device.cpu_limit:
        shown.add_row("limit of the container", f"{device.cpu_limit:g} cores")
    if device.thermal_unknown:
        shown.add_row("thermal state", cell(f"unknown: {device.thermal_unknown}"))
    shown.add_row("Python", cell(device.python) if device.python else "none: native programs run the models (--runner)")
    for state in device.runtimes:
        shown.add_row(state.name, cell(runtime_in_words(state)))
    return shown


def cores_in_words(cores: int, clocks_mhz: Sequence[int]) -> str:
    """The number of cores, and their clock rates if these are known.

    >>> cores_in_words(9, [1704] * 4 + [2367] * 4 + [2914])
    '9: 0-3 up to 1704 MHz, 4-7 up to 2367 MHz, 8 up to 2914 MHz'
    """
    groups = []
    for clock, members in itertools.groupby(range(len(clocks_mhz)), key=clocks_mhz.__getitem__):
        first, *_, last = [*members] * 2
        groups.append(f"{first}-{last} up to {clock} MHz" if last > first else f"{first} up to {clock} MHz")
    return f"{cores}: {', '.join(groups)}" if groups else str(cores)


def runtime_in_words(state: RuntimeState) -> str:
    """The version of a runtime, and what it needs."""
    needs = "; ".join(f"{need.what} ({need.fix})" for need in state.needs)
    return ": ".join(filter(None, (state.version, needs)))


def doctor(hosts: Hosts = None, python: HostPython = "", as_json: Json = False) -> None:
    """Examine the installation: packages, runtimes, cores, cache, adb, phones, ssh, and machines given as ssh:HOST.

    Every installed runtime converts a block and runs it, and its outputs are compared with PyTorch's. Each finding that
    is not ok says what to do. Exit status: 0 if there is no problem (a missing optional part is only a note), 1 if
    there is one, 2 for bad usage.

    Example: dmask doctor
    """
    with ShownProgress() as progress:
        findings = api.examine_installation(hosts or [], python, progress)
    healthy = all(finding.verdict != "problem" for finding in findings)
    if as_json:
        told = [DoctorFinding(check=f.check, verdict=f.verdict, found=f.found, fix=f.fix) for f in findings]
        print_json(Findings(healthy=healthy, findings=told))
    else:
        console.print(findings_table(findings))
    if not healthy:
        raise typer.Exit(1)


def findings_table(findings: Sequence[Finding]) -> Table:
    """A table of findings: verdict, what was found, and what to do."""
    shown = Table("check", "verdict", "found", "what to do")
    for finding in findings:
        verdict = cell(finding.verdict, STYLES[finding.verdict])
        shown.add_row(cell(finding.check), verdict, cell(finding.found), cell(finding.fix))
    return shown
