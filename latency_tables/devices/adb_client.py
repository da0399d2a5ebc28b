"""Android's ``adb`` program: which phones are attached, their shell, and files sent to them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from dmask_mobile.errors import DmaskError
from latency_tables.devices.device import DeviceLostError
from latency_tables.devices.retry import retried

SECONDS = 30.0  # for what takes a moment
PUSH_SECONDS_PER_MB = 5.0  # far slower than USB 2
ENDED = re.compile(r"\n@dmask-ended ([0-9]+)\n\Z")
GOES_ON = "what was measured is kept, and the same command goes on"
T = TypeVar("T")

ADVICE = {
    "": ("is not attached", "plug it in, switch on USB debugging; 'adb devices' must list it"),
    "unauthorized": ("does not trust this computer (unauthorized)", "unlock it and accept 'Allow USB debugging?'"),
    "authorizing": ("is still deciding about this computer", "unlock it and accept 'Allow USB debugging?'"),
    "offline": ("is offline", "plug it in again; if that does not help: adb kill-server"),
    "no permissions": (
        "is not open to this user (no permissions)",
        "Debian: apt install android-sdk-platform-tools-common, join the group plugdev, plug it in again",
    ),
}
"""What is wrong with a phone in a state other than ``device``, and what to do; the empty state: it is gone."""


class Phone(NamedTuple):
    """An attached phone: ``state`` is ``device`` when it can be used."""

    serial: str
    state: str
    model: str = ""


class Output(NamedTuple):
    """What a command in a phone's shell left."""

    status: int
    stdout: str
    stderr: str

    def tail(self, lines: int = 3) -> str:
        """The end of what it said, for messages."""
        said = [line.strip() for line in f"{self.stdout}\n{self.stderr}".splitlines() if line.strip()]
        return " | ".join(said[-lines:]) or "it said nothing"


class UnwillingError(DeviceLostError):
    """The phone is there, but does not do what it is told: trying again does not help."""


class SlowError(UnwillingError):
    """A command that has not ended in its time; ``stdout`` is what it said until then."""

    def __init__(self, serial: str, words: Sequence[str], seconds: float, stdout: str) -> None:
        super().__init__(f"phone '{serial}': no end of '{words[0]}' after {seconds:g} s", GOES_ON)
        self.stdout = stdout


def attached_phones() -> tuple[Phone, ...]:
    """The phones that adb knows.

    Raises:
        DmaskError: when adb is not installed or does not work.
    """
    try:
        done = _run(["adb", "devices", "-l"], SECONDS)
    except subprocess.TimeoutExpired:
        raise DmaskError(f"'adb devices' does not end within {SECONDS:g} s", "adb kill-server") from None
    if done.returncode:
        raise DmaskError(f"'adb devices' fails: {_last_line(done)}", "adb kill-server, then try again")
    return parse_devices(done.stdout.decode(errors="replace"))


def parse_devices(text: str) -> tuple[Phone, ...]:
    """The phones in the output of ``adb devices -l``."""
    _, _, lines = text.partition("List of devices attached\n")
    rows = re.findall(r"^(\(no serial number\)|\S+) +(no permissions|[a-z]+)\b(?:.* model:(\S+))?", lines, re.M)
    return tuple(Phone(*row) for row in rows)


def chosen_phone(serial: str = "") -> Phone:
    """The phone ``serial``, or else the only one, ready for use.

    Raises:
        DmaskError: when there is no such phone, when several are there and none is named, and when it is not ready.
    """
    phones = attached_phones()
    if not phones:
        raise DmaskError("no phone is attached", ADVICE[""][1])
    known = ", ".join(f"{phone.serial} ({phone.model or phone.state})" for phone in phones)
    found = [phone for phone in phones if serial in ("", phone.serial)]
    if not found:
        raise DmaskError(f"no phone {serial!r} is attached", f"attached: {known}")
    if len(found) > 1:
        raise DmaskError(f"several phones are attached: {known}", f"choose one: --device adb:{found[0].serial}")
    if trouble := trouble_of(found[0]):
        raise trouble
    return found[0]


def trouble_of(phone: Phone) -> DeviceLostError | None:
    """Why a phone cannot be used, with what to do; None when it can."""
    if phone.state == "device":
        return None
    problem, fix = ADVICE.get(phone.state, (f"is in state '{phone.state}'", "start Android on it"))
    return DeviceLostError(f"phone '{phone.serial}' {problem}", fix)


class Adb:
    """The shell and the files of one phone.

    Args:
        serial: its name for adb.
        pauses: seconds to wait before each time that something is tried again while the phone is not there.
    """

    def __init__(self, serial: str, pauses: Sequence[float] = ()) -> None:
        self.serial = serial
        self.pauses = pauses

    def shell_command(self, words: Sequence[str]) -> list[str]:
        """What runs a command in the phone's shell, its stdin, stdout and stderr those of this command."""
        return ["adb", "-s", self.serial, "shell", "-T", shlex.join(words)]

    def shell(self, *words: str, seconds: float = SECONDS) -> Output:
        """Runs a command in the phone's shell, which may be run twice; every word arrives there as it is.

        Raises:
            SlowError: when it has not ended within ``seconds``.
            DeviceLostError: when the phone is not there, or leaves meanwhile.
        """
        return self._again(lambda: self._shell(words, seconds))

    def push(self, path: Path, remote: str) -> None:
        """Copies a file to the phone, with its permissions.

        Raises:
            UnwillingError: when the phone does not take it.
            DeviceLostError: when the phone is not there, or leaves meanwhile.
        """
        self._again(lambda: self._push(path, remote))

    def trouble(self) -> DeviceLostError | None:
        """Why the phone cannot be used now, with what to do; None when it can."""
        try:
            here = [phone for phone in attached_phones() if phone.serial == self.serial]
        except DmaskError as error:
            return DeviceLostError(error.problem, f"{error.fix}; {GOES_ON}")
        trouble = trouble_of(here[0] if here else Phone(self.serial, ""))
        return DeviceLostError(trouble.problem, f"{trouble.fix}; {GOES_ON}") if trouble else None

    def _again(self, action: Callable[[], T]) -> T:
        """What ``action`` gives, again and again while the phone is not there."""
        return retried(action, self.pauses, DeviceLostError, unless=UnwillingError)

    def _shell(self, words: Sequence[str], seconds: float) -> Output:
        command = self.shell_command(words)
        # When a phone is unplugged in the middle, adb ends with status 0 and half of the output: only this line tells.
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
                raise UnwillingError(f"phone '{self.serial}' does not take '{path.name}': {refused[1]}", GOES_ON)
            raise self._lost(done)

    def _lost(self, done: subprocess.CompletedProcess[bytes]) -> DeviceLostError:
        """The error for a connection that has ended."""
        broken = f"the connection to phone '{self.serial}' broke: {_last_line(done)}"
        return self.trouble() or DeviceLostError(broken, GOES_ON)


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    try:
        # A session of its own: Ctrl-C in the terminal must not look like a phone that left.
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise DmaskError(
            "the program 'adb' is not installed",
            "Debian: apt install adb; macOS: brew install android-platform-tools",
        ) from None


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    said = (done.stdout + b"\n" + done.stderr).decode(errors="replace").strip().splitlines()
    return said[-1] if said else "it ended without a word"
