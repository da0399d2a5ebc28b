"""Calls Android's ``adb`` program: lists the attached phones, runs shell commands and copies files."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from dmask_mobile.errors import DmaskError
from latency_tables.devices.device import DeviceLostError
from latency_tables.devices.retry import retried

SECONDS = 30.0  # the time limit of short commands
PUSH_SECONDS_PER_MB = 5.0  # the limit; USB 2 is much faster
MAX_SAID_BYTES = 16 * 2**20  # of a command's output, so that a program with endless output does not fill the memory
ENDED = re.compile(r"\n@dmask-ended ([0-9]+)\n\Z")
GOES_ON = "what was measured is kept, and the same command continues"
T = TypeVar("T")

EXCEPTION = re.compile(r"^\W*([\w.$]*(?:Exception|Error): .+)$", re.M)
FRAME = re.compile(r"at [\w.$<>]+\(|\.\.\. \d+ more")
BOOT = "start Android on it: adb reboot"

ADVICE = {
    "": ("is not attached", "plug it in, switch on USB debugging; 'adb devices' must list it"),
    "unauthorized": ("does not trust this computer (unauthorized)", "unlock it and accept 'Allow USB debugging?'"),
    "authorizing": ("is still deciding about this computer", "unlock it and accept 'Allow USB debugging?'"),
    "offline": ("is offline", "plug it in again; if that does not help: adb kill-server"),
    "no permissions": (
        "is not open to this user (no permissions)",
        "Debian: apt install android-sdk-platform-tools-common, join the group plugdev, plug it in again",
    ),
    "connecting": ("is still connecting", "wait for some seconds; if that does not help: adb kill-server"),
    "detached": ("is detached: adb released it", "adb attach, or plug it in again"),
    "recovery": ("is in state 'recovery'", f"{BOOT} (its recovery system runs)"),
    "rescue": ("is in state 'rescue': Android could not start", BOOT),
    "sideload": ("is in state 'sideload': it waits for an update", BOOT),
    "bootloader": ("is in state 'bootloader': no system runs on it", "start Android on it: fastboot reboot"),
    "host": ("is in state 'host': it is a computer that debugs others", "leave it out"),
    "unknown": ("is in a state that adb does not know", "adb kill-server, then plug it in again"),
    "no device": ("is gone (no device)", "plug it in again"),
}
"""The problem of a phone in each state other than ``device``, and what to do; the empty state means absent."""


class Phone(NamedTuple):
    """An attached phone; ``state`` is ``device`` if it can be used; ``reason``: adb's text about another state."""

    serial: str
    state: str
    model: str = ""
    reason: str = ""

    @property
    def wireless(self) -> bool:
        """Whether it is reached over a network, by an address or a network name."""
        return re.search(r":\d+$|\._adb", self.serial) is not None


class Output(NamedTuple):
    """The result of a command in a phone's shell."""

    status: int
    stdout: str
    stderr: str

    def exception(self) -> str:
        """The message of a Java exception in the output; empty if there is none."""
        found = EXCEPTION.search(f"{self.stderr}\n{self.stdout}")
        return found[1].strip() if found and FRAME.search(self.stdout + self.stderr) else ""

    def tail(self, lines: int = 3) -> str:
        """The end of the output for messages; for a Java exception, its message without stack frames."""
        said = [line.strip() for line in f"{self.stdout}\n{self.stderr}".splitlines() if line.strip()]
        return self.exception() or " | ".join(said[-lines:]) or "it printed nothing"


class UnwillingError(DeviceLostError):
    """The phone is attached but refuses a request; trying again does not help."""


class SlowError(UnwillingError):
    """A command that exceeded its time or its output limit; ``stdout``: its output so far."""

    def __init__(self, serial: str, words: Sequence[str], seconds: float, stdout: str) -> None:
        self.how = f"after {seconds:g} s" if len(stdout) <= MAX_SAID_BYTES else f"after {MAX_SAID_BYTES:,} bytes"
        super().__init__(f"phone '{serial}': '{words[0]}' did not end {self.how}", GOES_ON)
        self.stdout = stdout


def attached_phones() -> tuple[Phone, ...]:
    """The phones that adb lists.

    Raises:
        DmaskError: if adb is not installed or does not work.
    """
    try:
        done = _run(["adb", "devices", "-l"], SECONDS)
    except subprocess.TimeoutExpired:
        raise DmaskError(f"'adb devices' does not end within {SECONDS:g} s", "adb kill-server") from None
    if done.returncode:
        raise DmaskError(f"'adb devices' fails: {_last_line(done)}", "adb kill-server, then try again")
    return parse_devices(done.stdout.decode(errors="replace"))


def parse_devices(text: str) -> tuple[Phone, ...]:
    """The phones in the output of ``adb devices -l``; names may contain spaces, and lines may end in CR LF."""
    lines = iter(line.rstrip() for line in text.splitlines())
    for line in lines:
        if line == "List of devices attached":
            break
    return tuple(phone for line in lines if (phone := _parse_device(line)) is not None)


def _parse_device(line: str) -> Phone | None:
    """The phone in a line of the list; None for a line that does not describe a phone."""
    if not line or line.startswith(("*", "adb server")):
        return None
    refused = re.match(r"(.+?)\s+no permissions\b(.*?)((?: [\w.-]+:\S+)*)$", line)
    if refused:
        reason = refused[2].strip(" ;")
        return Phone(refused[1], "no permissions", _model(refused[3]), reason)
    states = "|".join(filter(None, (*ADVICE, "device")))
    found = re.match(rf"(.+?)\s+({states})((?:\s+[\w.-]+:\S*)*)$", line) or re.match(r"(\S+)\s+(\S+)(.*)$", line)
    return Phone(found[1], found[2], _model(found[3])) if found else None


def _model(rest: str) -> str:
    found = re.search(r"\bmodel:(\S+)", rest)
    return found[1] if found else ""


def serial_number(adb: Adb) -> str:
    """The phone's own serial number, independent of its connection; empty if it has none or a placeholder."""
    told = adb.shell("getprop", "ro.serialno").stdout.strip()
    return "" if told.lower() in ("", "unknown", "0123456789abcdef") else told


def distinct_phones(phones: Sequence[Phone]) -> tuple[Phone, ...]:
    """One entry for each phone; if a phone is connected by USB and by network, the USB entry is kept.

    If there are several phones and one is wireless, the ready phones are asked for their serial numbers.
    """
    ready = [phone for phone in phones if phone.state == "device"]
    if len(ready) < 2 or not any(phone.wireless for phone in ready):
        return tuple(phones)
    kept: dict[tuple[str, str], Phone] = {}
    others: set[Phone] = set()
    for phone in sorted(ready, key=lambda phone: phone.wireless):
        try:
            number = serial_number(Adb(phone.serial))
        except DmaskError:  # its problem is reported elsewhere
            number = ""
        key = (number or phone.serial, phone.model if number else "")
        if number and phone.wireless and key in kept:
            others.add(phone)
        kept.setdefault(key, phone)
    return tuple(phone for phone in phones if phone not in others)


def chosen_phone(serial: str = "") -> Phone:
    """The phone ``serial``, or the only phone, after a check that it is ready for use.

    Raises:
        DmaskError: if there is no such phone, several phones are attached and none is named, or it is not ready.
    """
    phones = attached_phones()
    if not phones:
        raise DmaskError("no phone is attached", ADVICE[""][1])
    known = ", ".join(f"{phone.serial} ({phone.model or phone.state})" for phone in phones)
    found = [phone for phone in phones if serial in ("", phone.serial)]
    if len(found) > 1:
        found = list(distinct_phones(found))
    if not found:
        raise DmaskError(f"no phone {serial!r} is attached", f"attached: {known}")
    if len(found) > 1:
        raise DmaskError(
            f"several phones are attached: {known}", f"choose one: --device {shlex.quote(f'adb:{found[0].serial}')}"
        )
    if trouble := trouble_of(found[0]):
        raise trouble
    return found[0]


def trouble_of(phone: Phone) -> DeviceLostError | None:
    """The reason why a phone cannot be used, with what to do; None if it can be used."""
    if phone.state == "device":
        return None
    problem, fix = ADVICE.get(phone.state, (f"is in state '{phone.state}'", "start Android on it"))
    problem += f": {phone.reason}" if phone.reason else ""
    return DeviceLostError(f"phone '{phone.serial}' {problem}", fix)


class Adb:
    """Access to the shell and the files of one phone.

    Args:
        serial: the name of the phone in adb.
        pauses: the seconds to wait before each new attempt while the phone is absent.
    """

    def __init__(self, serial: str, pauses: Sequence[float] = ()) -> None:
        self.serial = serial
        self.pauses = pauses

    def shell_command(self, words: Sequence[str]) -> list[str]:
        """A command that runs ``words`` in the phone's shell and passes on stdin, stdout and stderr."""
        return ["adb", "-s", self.serial, "shell", "-T", shlex.join(words)]

    def shell(self, *words: str, seconds: float = SECONDS) -> Output:
        """Runs a command in the phone's shell. It may run twice; every word arrives unchanged.

        Raises:
            SlowError: if it has not ended within ``seconds``.
            DeviceLostError: if the phone is absent or is disconnected meanwhile.
        """
        return self._again(lambda: self._shell(words, seconds))

    def push(self, path: Path, remote: str) -> None:
        """Copies a file to the phone, with its permissions.

        Raises:
            UnwillingError: if the phone refuses it.
            DeviceLostError: if the phone is absent or is disconnected meanwhile.
        """
        self._again(lambda: self._push(path, remote))

    def trouble(self) -> DeviceLostError | None:
        """The reason why the phone cannot be used now, with what to do; None if it can be used."""
        try:
            here = [phone for phone in attached_phones() if phone.serial == self.serial]
        except DmaskError as error:
            return DeviceLostError(error.problem, f"{error.fix}; {GOES_ON}")
        trouble = trouble_of(here[0] if here else Phone(self.serial, ""))
        return DeviceLostError(trouble.problem, f"{trouble.fix}; {GOES_ON}") if trouble else None

    def _again(self, action: Callable[[], T]) -> T:
        """The result of ``action``, which is tried again while the phone is absent."""
        return retried(action, self.pauses, DeviceLostError, unless=UnwillingError)

    def _shell(self, words: Sequence[str], seconds: float) -> Output:
        command = self.shell_command(words)
        # If a phone is disconnected, adb ends with status 0 and incomplete output; only this line shows that it is
        # complete.
        command[-1] += r"; printf '\n@dmask-ended %d\n' $?"
        try:
            done = _run(command, seconds)
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise self.trouble() or SlowError(self.serial, words, seconds, said) from None
        stdout = done.stdout.decode(errors="replace")
        ended = ENDED.search(stdout)
        if ended is None:
            raise self._lost(done)
        return Output(int(ended[1]), stdout[: ended.start()], done.stderr.decode(errors="replace"))

    def _push(self, path: Path, remote: str) -> None:
        seconds = SECONDS + PUSH_SECONDS_PER_MB * path.stat().st_size / 1e6
        try:
            done = _run(["adb", "-s", self.serial, "push", str(path.absolute()), remote], seconds)
        except subprocess.TimeoutExpired:
            raise self.trouble() or SlowError(self.serial, ["adb push"], seconds, "") from None
        if done.returncode:
            refused = re.search(r"^adb: error: .*: remote (.*)$", done.stdout.decode(errors="replace"), re.M)
            if refused:
                raise UnwillingError(f"phone '{self.serial}' does not accept '{path.name}': {refused[1]}", GOES_ON)
            raise self._lost(done)

    def _lost(self, done: subprocess.CompletedProcess[bytes]) -> DeviceLostError:
        """The error for a broken connection."""
        broken = f"the connection to phone '{self.serial}' broke: {_last_line(done)}"
        return self.trouble() or DeviceLostError(broken, GOES_ON)


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    try:
        # A separate session, so that Ctrl-C in the terminal does not look like a disconnected phone.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except FileNotFoundError:
        raise DmaskError(
            "the program 'adb' is not installed",
            "Debian: apt install adb; macOS: brew install android-platform-tools",
        ) from None
    with process:
        try:
            stdout, stderr = _said(process, seconds)
            return subprocess.CompletedProcess(command, process.wait(), stdout, stderr)
        except BaseException:  # including Ctrl-C
            process.kill()
            raise


def _said(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bytes]:
    """The output of a process until it closes its streams.

    Raises:
        TimeoutExpired: if it has not done so within ``seconds``, or writes too much.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    end, said = time.monotonic() + seconds, {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for number in said:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            left = end - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready or max(map(len, said.values())) > MAX_SAID_BYTES:
                raise subprocess.TimeoutExpired(process.args, seconds, bytes(said[process.stdout.fileno()]))
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
    stdout, stderr = said.values()
    return bytes(stdout), bytes(stderr)


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    said = (done.stdout + b"\n" + done.stderr).decode(errors="replace").strip().splitlines()
    return said[-1] if said else "it ended without a message"
