"""Debian's sshd on a free loopback port, with throw-away keys: a machine to reach by ``ssh``."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.processes import wait_until

SSHD = "/usr/sbin/sshd"
SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
CLIENT = """
Host refused
    Port {closed_port}
Host stranger
    UserKnownHostsFile none
Host locked
    IdentityFile none
Host board refused stranger
    IdentityFile {folder}/user
Host board refused stranger locked
    HostName 127.0.0.1
    Port {port}
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile none
"""


class Sshd:
    """A server that can be cut off and come back. As context manager it serves until the block ends.

    ``path`` is a PATH whose ``ssh`` reads this server's configuration instead of the user's. The server is the host
    ``board`` there; also ``stranger``, whose key is not known, and ``locked``, which knows no key of ours; nothing
    listens on ``refused``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> str:
        """PATH with the ``ssh`` of this server first."""
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    @property
    def num_connections(self) -> int:
        """How many the server has accepted so far."""
        return (self.folder / "log").read_text().count("Accepted publickey")

    def __enter__(self) -> Sshd:
        for name in ("host", "user"):
            key = str(self.folder / name)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        kind, public, *_ = (self.folder / "host.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {public}\n")
        (self.folder / "sshd_config").write_text(SERVER.format(folder=self.folder, port=self.port))
        client = CLIENT.format(folder=self.folder, port=self.port, closed_port=free_port())
        (self.folder / "config").write_text(client)
        program = self.folder / "bin" / "ssh"
        program.parent.mkdir()
        real = shlex.join([str(shutil.which("ssh")), "-F", str(self.folder / "config")])
        program.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        program.chmod(0o700)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serves, until `stop`."""
        assert Path(SSHD).exists(), "these tests want an sshd: apt install openssh-server"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd confines its unprivileged half
        with (self.folder / "log").open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._process = subprocess.Popen(command, stderr=log)
        wait_until(self._listens, "sshd listens")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "sshd does not listen: " + (self.folder / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Ends the server and all its connections."""
        assert self._process is not None
        connections = self._connections(self._process.pid)
        self._process.kill()
        self._process.wait()
        _kill(connections)

    def cut(self) -> int:
        """Drops all connections, as a lost network does; returns how many processes served them."""
        assert self._process is not None
        return _kill(self._connections(self._process.pid))

    def _connections(self, parent: int) -> list[int]:
        """The sshd processes below ``parent``: not the commands that they run, which see their stdin end."""
        found = []
        for child in _told(parent, f"task/{parent}/children").split():
            if _told(child, "comm").startswith("sshd"):
                found += [int(child), *self._connections(int(child))]
        return found


def _told(process: int | str, what: str) -> str:
    """What Linux says of a process; nothing when it has ended."""
    try:
        return Path(f"/proc/{process}/{what}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _kill(processes: list[int]) -> int:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(processes)


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
