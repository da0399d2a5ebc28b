"""A machine that is reached by ssh: a single-board computer, a Linux phone, a Mac."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

from dmask_mobile.errors import DmaskError
from latency_tables.devices.agent_session import PAUSES_SECONDS, AgentSession, agent_command
from latency_tables.devices.device import DeviceInfo
from latency_tables.devices.local import info_of
from latency_tables.devices.options import DeviceOptions
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime

# No questions, because nobody may be there to answer; no forwarded ports; a connection silent for 15 s is lost.
OPTIONS = (
    "BatchMode=yes",
    "ClearAllForwardings=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
)
HOST = re.compile(r"(ssh://)?([\w.+-]+@)?[\w.:%\[\]-]+")  # including IPv6 addresses and ports
CONNECTION_FAILED = 255
NO_SUCH_PROGRAM = (126, 127)
REMEDIES = {
    "Could not resolve hostname": "check the name, or describe the host in ~/.ssh/config",
    "Host key verification failed": "run 'ssh {host} true' once and look at the key that it shows",
    "Permission denied": "set up a key (ssh-copy-id {host}) until 'ssh {host} true' needs no password",
    "Connection refused": "start sshd there, or set its port in ~/.ssh/config",
    "timed out": "is it switched on, and in this network?",
}


class SshDevice:
    """`Device` that uses the OpenSSH client with the user's configuration, keys and jump hosts.

    Nothing is installed there: the agent and the models are sent through the connection and removed at its end.

    Args:
        options: the host and the Python there.
        pauses: the seconds to wait before each new attempt after a lost connection.
    """

    def __init__(self, options: DeviceOptions, pauses: Sequence[float] = PAUSES_SECONDS) -> None:
        self.options = options
        self.pauses = pauses
        self.host = options.at.removeprefix("ssh:")
        if not HOST.fullmatch(self.host) or re.search("(^|@|//)-", self.host):  # ssh would interpret '-x' as an option
            raise DmaskError(f"not a host name: {self.host!r}", "give --device ssh:HOST or ssh:USER@HOST")

    def describe(self, runtime: Runtime) -> DeviceInfo:
        """The agent's description; see `Device`."""
        with self._session(runtime, 1, runtime.delegates[0], self._check_contact) as session:
            return info_of(session, runtime, self.host)

    def survey(self, patience: float) -> dict[str, Any]:
        """The agent's description of the machine and of every runtime there; see `latency_tables.devices.agent.survey`.

        Raises:
            DmaskError: if there is no connection, or no Python that answers within ``patience`` seconds.
        """
        with self._session(OnnxRuntime(), 1, "cpu", self._check_contact) as session:
            session.patience = patience
            return session.survey()

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[AgentSession]:
        """A session with the agent on the other machine; see `Device`.

        Raises:
            DmaskError: if it cannot run with these settings.
        """
        with self._session(runtime, threads, delegate, self._lost) as session:
            info_of(
                session, runtime, self.host
            )  # checked first, so that problems of the machine are not recorded as failures of models
            yield session

    def _session(
        self, runtime: Runtime, threads: int, delegate: str, link: Callable[[int, str], str | None]
    ) -> AbstractContextManager[AgentSession]:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise DmaskError("no ssh client on this machine", "install OpenSSH's: apt install openssh-client")
        python = shlex.split(self.options.python) or ["python3"]
        agent = shlex.join(agent_command(python, runtime, threads, delegate, self.options.cores))
        # ssh ends with 255 for a lost connection and for a program killed by a signal; this shell returns 128 + n for
        # signals.
        there = shlex.join(["sh", "-c", f"{agent}; exit $?"])
        options = [word for option in OPTIONS for word in ("-o", option)]
        return closing(AgentSession([ssh, "-T", *options, "--", self.host, there], link, pauses=self.pauses))

    def _lost(self, status: int, stderr: str) -> str | None:
        """The reason why the connection was lost, None if it was not; a ``link`` of `AgentSession`."""
        if status != CONNECTION_FAILED:
            return None
        lines = stderr.strip().splitlines() or ["ssh gives no reason"]
        told = [line for line in lines if any(words in line for words in REMEDIES)]
        return f"no connection to {self.host}: {(told or lines)[-1].strip()}"

    def _check_contact(self, status: int, stderr: str) -> None:
        """Raises the reason why the first connection fails, which is not tried again; a ``link`` of `AgentSession`."""
        lost = self._lost(status, stderr)
        if lost is not None:
            remedy = next((todo for words, todo in REMEDIES.items() if words in lost), "try 'ssh {host} true'")
            raise DmaskError(lost, remedy.format(host=self.host))
        if status in NO_SUCH_PROGRAM:
            python = self.options.python or "python3"
            raise DmaskError(
                f"no Python '{python}' on {self.host}", "set --python to its path there: --python venv/bin/python"
            )
