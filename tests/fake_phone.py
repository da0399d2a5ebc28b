"""A phone on a loopback port: Android's side of the adb protocol, for the real ``adb`` program.

Its shell runs commands for real. ``/data/local/tmp`` and ``/sys/devices`` in them are folders below the phone's own,
and Android's programs (getprop, settings, dumpsys, ...) are small scripts over files in ``folder/state``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal

import pytest

from tests.processes import wait_until

State = Literal["device", "unauthorized", "offline"]

VERSION, MAX_DATA = 0x01000001, 256 * 1024
AUTH_TOKEN, AUTH_SIGNATURE = 1, 2
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of shell,v2
HEADER, PACKET, SYNC = struct.Struct("<4sIIIII"), struct.Struct("<BI"), struct.Struct("<4sI")
GRACE_SECONDS = 60.0
ELSEWHERE = ("/data/local/tmp", "/sys/devices")

PROGRAMS = {
    "getprop": 'cat "$STATE/props/$1" 2>/dev/null || echo',
    "svc": '[ "$*" = "power stayon usb" ] && echo 2 >"$STATE/settings/stay_on_while_plugged_in"',
    "settings": """case "$1" in
get) cat "$STATE/settings/$3" 2>/dev/null || echo null ;;
put) echo "$4" >"$STATE/settings/$3" ;;
delete) rm -f "$STATE/settings/$3" ;;
esac""",
    "cmd": """if [ "$1 $2" = "power set-fixed-performance-mode-enabled" ] && [ -e "$STATE/fixed_performance" ]; then
echo "$3" >"$STATE/fixed_performance"
else echo "Unknown command: $2" >&2; exit 255; fi""",
    # Each look at the thermal status takes one line of its file, but for the last one.
    "dumpsys": """echo "$1" >>"$STATE/dumpsys"
case "$1" in
battery) cat "$STATE/battery" ;;
thermalservice) [ -e "$STATE/thermal" ] || { echo "Can't find service: $1"; exit 0; }
printf 'IsStatusOverride: false\\nThermal Status: '; head -n 1 "$STATE/thermal"
[ "$(wc -l <"$STATE/thermal")" -lt 2 ] || sed -i 1d "$STATE/thermal" ;;
esac""",
    "taskset": 'echo "$1" >>"$STATE/masks"; shift; exec "$@"',
    "log": 'echo "$PPID $*" >>"$STATE/log"',
    "logcat": """for word; do case "$word" in --pid=*) pid=${word#--pid=} ;; esac; done
sed -n "s/^$pid //p" "$STATE/log" """,
}
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.soc.model": "Tensor G3",
    "ro.build.version.release": "14",
}
CLOCKS_KHZ = (1704000, 1704000, 1704000, 1704000, 2367000, 2367000, 2367000, 2367000, 2914000)
BATTERY = "Current Battery Service state:\n  USB powered: true\n  level: 81\n  scale: 100\n  temperature: 287\n"


class FakePhone:
    """A phone that can be plugged in and out. As context manager it is plugged in until the block ends.

    Args:
        folder: holds its files.
        state: how it answers: as a phone that trusts every computer, none, or not at all.

    Attributes:
        commands: what its shell was asked to run so far.
        on_command: is called with each command as it starts.
        on_data: is called with the number of bytes that a transfer has brought so far.
        in_reach: as long as it is not set, nothing that is sent arrives, and adb has no sign of that.
    """

    def __init__(self, folder: Path, state: State = "device") -> None:
        self.folder = folder
        self.state = state
        self.port = free_port()
        self.commands: list[str] = []
        self.on_command: Callable[[str], None] = lambda command: None
        self.on_data: Callable[[int], None] = lambda size: None
        self.in_reach = threading.Event()
        self.in_reach.set()
        self._moving = threading.RLock()  # it is plugged in and out by one thread at a time
        self._listener: socket.socket | None = None
        self._connections: list[_Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._make_files()

    @property
    def serial(self) -> str:
        """Its name for adb."""
        return f"127.0.0.1:{self.port}"

    @property
    def temporary(self) -> Path:
        """Its ``/data/local/tmp``."""
        return self.folder / "data/local/tmp"

    def __enter__(self) -> FakePhone:
        self.plug_in()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # another thread has just waited for it
                    os.killpg(process.pid, signal.SIGKILL)

    def plug_in(self) -> None:
        """Appears, and makes itself known to adb."""
        with self._moving:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
            connecting = subprocess.Popen(["adb", "connect", self.serial], stdout=subprocess.DEVNULL)
            try:
                wait_until(lambda: (self.serial, self.state) in listed(), f"adb calls {self.serial} {self.state}")
            finally:
                connecting.terminate()  # it waits long for a phone that does not answer
                connecting.wait()

    def unplug(self) -> None:
        """Vanishes, whatever is under way; adb has forgotten it when this ends."""
        self.in_reach.set()
        with self._moving:
            listener, self._listener = self._listener, None
            if listener is None:
                return
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for connection in self._connections:
                connection.end()
            self._connections.clear()
            subprocess.run(["adb", "disconnect", self.serial], check=False, capture_output=True)
            wait_until(lambda: self.serial not in dict(listed()), f"adb forgets {self.serial}")

    def read(self, name: str) -> str:
        """What a file of its state holds; nothing when there is none."""
        path = self.folder / "state" / name
        return path.read_text().strip() if path.exists() else ""

    def write(self, name: str, text: str | None) -> None:
        """Gives a file of its state a content, or removes it."""
        path = self.folder / "state" / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)

    def local(self, text: str) -> str:
        """A path or command of the phone as this machine understands it."""
        for place in ELSEWHERE:
            text = text.replace(place, f"{self.folder}{place}")
        return text

    def shell(self, command: str) -> subprocess.Popen[bytes]:
        """Starts a command of its shell."""
        self.commands.append(command)
        environment = os.environ | {
            "PATH": f"{self.folder}/system/bin:/usr/bin:/bin",
            "STATE": str(self.folder / "state"),
        }
        process = subprocess.Popen(
            ["sh", "-c", self.local(command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self._processes.append(process)
        threading.Thread(target=self.on_command, args=(command,), daemon=True).start()
        return process

    def _make_files(self) -> None:
        for name in ("data/local/tmp", "state/props", "state/settings", "system/bin"):
            (self.folder / name).mkdir(parents=True)
        for name, script in PROGRAMS.items():
            program = self.folder / "system/bin" / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        for name, value in PROPERTIES.items():
            self.write(f"props/{name}", f"{value}\n")
        for core, clock in enumerate(CLOCKS_KHZ):
            clocks = self.folder / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            clocks.mkdir(parents=True)
            (clocks / "cpuinfo_max_freq").write_text(f"{clock}\n")
        self.write("battery", BATTERY)
        self.write("thermal", "0\n")
        self.write("fixed_performance", "false\n")
        self.write("settings/stay_on_while_plugged_in", "1\n")
        self.write("log", "")

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = _Connection(self, listener.accept()[0])
                self._connections.append(connection)
                threading.Thread(target=connection.run, daemon=True).start()


class _Connection:
    """One connection of an adb server: messages of a 24-byte header and data, for many streams."""

    def __init__(self, phone: FakePhone, link: socket.socket) -> None:
        self.phone = phone
        self.link = link
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def run(self) -> None:
        """Answers until the connection ends."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, first, second, size, _, _ = HEADER.unpack(self._take(HEADER.size))
                self._answer(command, first, second, self._take(size))
        self.end()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Sends a message; to nobody when the connection has ended."""
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        with self._sending, contextlib.suppress(OSError):
            self.link.sendall(HEADER.pack(command, first, second, len(data), 0, magic) + data)

    def end(self) -> None:
        """Closes the connection and all its streams."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        self.link.close()
        for stream in list(self._streams.values()):
            stream.end()

    def _take(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            part = self.link.recv(size - len(taken))
            if not part:
                raise EOFError
            taken += part
        return bytes(taken)

    def _answer(self, command: bytes, first: int, second: int, data: bytes) -> None:
        self.phone.in_reach.wait()
        if self.phone.state == "offline":
            return
        if self.phone.state == "unauthorized":
            if command == b"CNXN" or first == AUTH_SIGNATURE:
                self.send(b"AUTH", AUTH_TOKEN, 0, bytes(20))  # no signature is good enough; a key waits for the user
        elif command == b"CNXN":
            banner = (
                b"device::ro.product.name=shiba;ro.product.model=Pixel 8;ro.product.device=shiba;features=shell_v2,cmd"
            )
            self.send(b"CNXN", VERSION, MAX_DATA, banner)
        elif command == b"OPEN":
            self._open(first, data.rstrip(b"\0").decode())
        elif command == b"OKAY" and second in self._streams:
            self._streams[second].acknowledged.release()
        elif command == b"WRTE" and second in self._streams:
            self._streams[second].incoming.put(data)
        elif command == b"CLSE" and second in self._streams:
            self._streams.pop(second).end()

    def _open(self, remote: int, service: str) -> None:
        kind, _, words = service.partition(":")
        serve = {"shell": _shell, "sync": _sync}.get(kind.partition(",")[0])
        if serve is None:
            self.send(b"CLSE", 0, remote)
            return
        number = max(self._streams, default=0) + 1
        stream = self._streams[number] = _Stream(self, number, remote)
        self.send(b"OKAY", number, remote)
        threading.Thread(target=_serve, args=(serve, stream, self.phone, words), daemon=True).start()


class _Stream:
    """One service's two-way stream of bytes."""

    def __init__(self, connection: _Connection, number: int, remote: int) -> None:
        self.connection = connection
        self.number = number
        self.remote = remote
        self.incoming: queue.Queue[bytes] = queue.Queue()
        self.acknowledged = threading.Semaphore(0)
        self.ended = False
        self._writing = threading.Lock()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            EOFError: when the stream ends before.
        """
        while len(self._rest) < size:
            data = self.incoming.get()
            if not data:
                raise EOFError
            self.connection.send(b"OKAY", self.number, self.remote)
            self._rest += data
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def write(self, data: bytes) -> None:
        """Sends bytes and waits until they have arrived."""
        with self._writing:
            if not self.ended:
                self.connection.send(b"WRTE", self.number, self.remote, data)
                self.acknowledged.acquire()

    def end(self) -> None:
        """Wakes up whoever waits."""
        self.ended = True
        self.incoming.put(b"")
        self.acknowledged.release()


def _serve(serve: Callable[[_Stream, FakePhone, str], None], stream: _Stream, phone: FakePhone, words: str) -> None:
    with contextlib.suppress(EOFError):
        serve(stream, phone, words)
    stream.connection.send(b"CLSE", stream.number, stream.remote)


def _shell(stream: _Stream, phone: FakePhone, command: str) -> None:
    """shell,v2: packets of stdin come, packets of stdout, stderr and at last the exit status go."""
    with phone.shell(command) as process:
        outputs = ((STDOUT, process.stdout), (STDERR, process.stderr))
        pumps = [threading.Thread(target=_pump, args=(stream, kind, pipe)) for kind, pipe in outputs]
        for pump in pumps:
            pump.start()
        threading.Thread(target=_feed, args=(stream, process), daemon=True).start()
        for pump in pumps:
            pump.join()
        status = process.wait()
    stream.write(PACKET.pack(EXIT, 1) + bytes([status if status >= 0 else 128 - status]))


def _pump(stream: _Stream, kind: int, pipe: IO[bytes]) -> None:
    while data := pipe.read(32768):
        stream.write(PACKET.pack(kind, len(data)) + data)


def _feed(stream: _Stream, process: subprocess.Popen[bytes]) -> None:
    """Gives the process its stdin, which ends with the stream; the process has then a moment to end too."""
    assert process.stdin is not None
    try:
        while True:
            kind, size = PACKET.unpack(stream.read(PACKET.size))
            data = stream.read(size)
            with contextlib.suppress(OSError, ValueError):
                if kind == STDIN:
                    process.stdin.write(data)
                elif kind == CLOSE_STDIN:
                    process.stdin.close()
    except EOFError:
        process.stdin.close()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):  # another thread has just waited for it
                os.killpg(process.pid, signal.SIGKILL)


def _sync(stream: _Stream, phone: FakePhone, _: str) -> None:
    """The requests that ``adb push`` makes: what is there, and files."""
    while True:
        request, size = SYNC.unpack(stream.read(SYNC.size))
        words = stream.read(size).decode()
        if request == b"STAT":
            path = Path(phone.local(words))
            found = path.stat() if path.exists() else None
            mode, length, changed = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
            stream.write(struct.pack("<4sIII", b"STAT", mode, length, changed))
        elif request == b"SEND":
            name, _, permissions = words.rpartition(",")
            stream.write(_receive(stream, phone, Path(phone.local(name)), int(permissions)))
        else:  # QUIT
            return


def _receive(stream: _Stream, phone: FakePhone, path: Path, mode: int) -> bytes:
    """Takes one file; returns the answer."""
    content = b""
    while True:
        kind, size = SYNC.unpack(stream.read(SYNC.size))
        if kind == b"DONE":
            break
        content += stream.read(size)
        phone.on_data(len(content))
    try:
        path.write_bytes(content)
        path.chmod(mode & 0o777)
    except OSError as error:
        reason = f"couldn't create file: {error.strerror}".encode()
        return SYNC.pack(b"FAIL", len(reason)) + reason
    return SYNC.pack(b"OKAY", 0)


@contextlib.contextmanager
def adb_server(folder: Path) -> Iterator[None]:
    """An adb server of its own for whoever calls ``adb`` in the block; ends with it."""
    if shutil.which("adb") is None:
        raise AssertionError(
            "these tests need the program adb: apt install adb (macOS: brew install android-platform-tools)"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("ANDROID_USER_HOME", str(folder))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        subprocess.run(["adb", "start-server"], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], check=True, capture_output=True)


def listed() -> list[tuple[str, str]]:
    """Serials and states as adb lists them."""
    text = subprocess.run(["adb", "devices"], check=True, capture_output=True, text=True).stdout
    return [(serial, state) for serial, tab, state in (line.partition("\t") for line in text.splitlines()) if tab]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
