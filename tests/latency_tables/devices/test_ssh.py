"""Machines reached by ssh, for real: Debian's sshd on loopback, the whole way from profiling to the table."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmask_mobile import cli
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from latency_tables.conversion.converter import convert_subject
from latency_tables.devices.agent_session import AgentSession
from latency_tables.devices.device import MeasuringError, Samples
from latency_tables.devices.device_options_store import load_device_options
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.registry import DEVICES
from latency_tables.devices.ssh import SshDevice
from latency_tables.profiling.metering import warm_up_model
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup, setup_for
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import BlockRow, NetworkRow
from latency_tables.table.table import LatencyTable
from tests.latency_tables.contract import check_device
from tests.processes import DMASK, run_command, wait_until
from tests.sshd import Sshd

pytestmark = pytest.mark.slow  # connections, and a process at the end of each

GOLDEN = Path(__file__).parents[2] / "golden" / "space_v1.yaml"
SPACE = SearchSpace.read(GOLDEN)
BLOCKS, NETWORKS = blocks_of(SPACE), networks_of(SPACE)
QUICK = ProfileSettings(
    rounds=2, network_rounds=2, seconds_per_block=0.001, seconds_per_network=0.001, metric_networks=0
)
RUNTIME = OnnxRuntime()
# Runs the agent, and does something of its own with one model.
FRAGILE = """
import os, sys, time, onnxruntime

def fragile(path, *args, real=onnxruntime.InferenceSession, **settings):
    if open(path, "rb").read() == b"bad":
        {then}
    return real(path, *args, **settings)

onnxruntime.InferenceSession = fragile
code, sys.argv = sys.argv[2], ["-c", *sys.argv[3:]]
exec(code)
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", server.path)
        yield server


def options(at: str = "ssh:board", python: str = shlex.quote(sys.executable), **others: object) -> DeviceOptions:
    return DeviceOptions(at=at, python=python, **others)


def setup() -> Setup:
    return setup_for([options()], "onnxruntime")


def profile_command(path: Path) -> list[str]:
    device = ("--device", "ssh:board", "--python", shlex.quote(sys.executable))
    return [DMASK, "profile", str(GOLDEN), "-o", str(path), "--rounds", "2", *device]


def fragile_python(folder: Path, then: str) -> str:
    """A Python whose ONNX Runtime does ``then`` with a model that is ``bad``."""
    (folder / "fragile.py").write_text(FRAGILE.format(then=then))
    return shlex.join([sys.executable, str(folder / "fragile.py")])


def before_sample(number: int, disturb: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Disturbs once, before the sample of that number."""
    real, numbers = AgentSession.sample, itertools.count()

    def sample(session: AgentSession, key: str, seconds: float) -> Samples:
        if next(numbers) == number:
            disturb()
        return real(session, key, seconds)

    monkeypatch.setattr(AgentSession, "sample", sample)


def agents_with(word: str) -> list[int]:
    """The processes of agents that have ``word`` in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if any(word.encode() in each for each in words) and b"onnxruntime" in words:
            found.append(int(process.name))
    return found


def assert_complete(path: Path, network_rounds: int = 2) -> None:
    """Two rounds of every block, and so many of every network: each once."""
    table = LatencyTable.read(path)
    found = [(row.round, repr(row.subject)) for row in table.rows if isinstance(row, BlockRow | NetworkRow)]
    wanted = [(round_, repr(subject)) for subject in BLOCKS for round_ in range(2)]
    wanted += [(round_, repr(subject)) for subject in NETWORKS for round_ in range(network_rounds)]
    assert sorted(found) == sorted(wanted)
    assert table.failures == {}


def test_a_machine_is_the_same_over_ssh(board: Sshd) -> None:
    over_ssh, here = SshDevice(options()), LocalDevice()
    assert over_ssh.describe(RUNTIME) == here.describe(RUNTIME)
    model = convert_subject(NETWORKS[0], RUNTIME, "fp32")
    outputs, memories, warm_up = [], [], warm_up_model(RUNTIME)
    for device in (over_ssh, here):
        with device.open(RUNTIME, 1, "cpu") as session:
            session.load("network", model)
            outputs.append(session.output("network"))
            memories.append(session.meter("memory", model, warm_up))
    assert outputs[0] == outputs[1]
    assert memories[0] == pytest.approx(memories[1], rel=0.15)


def test_contract(board: Sshd) -> None:
    check_device(SshDevice(options()), RUNTIME)


def test_cores_are_those_that_were_asked_for(board: Sshd) -> None:
    core = min(os.sched_getaffinity(0))
    python = f"{shlex.quote(sys.executable)} -X this-test"  # Python lets any word be; found by it below
    with SshDevice(options(python=python, cores=(core,))).open(RUNTIME, 1, "cpu") as session:
        session.describe()
        (agent,) = agents_with("this-test")
        assert os.sched_getaffinity(agent) == {core}


def test_profile_at_the_command_line(board: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    done = run_command(profile_command(path))
    assert done.returncode == 0, done.stderr
    assert load_device_options(LatencyTable.read(path).head, str(path)) == options()
    assert_complete(path, network_rounds=4)


def test_a_connection_that_is_cut_costs_nothing(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[int] = []
    before_sample(20, lambda: cuts.append(board.cut()), monkeypatch)
    connections = board.num_connections
    profile_space(SPACE, setup(), QUICK, tmp_path / "t.jsonl")
    assert cuts[0] > 0
    assert board.num_connections - connections == 3  # describe, open, open again
    assert_complete(tmp_path / "t.jsonl")


def test_an_order_that_is_cut_off_is_given_again(board: Sshd, tmp_path: Path) -> None:
    then = f"first = not os.listdir('{tmp_path}/marks'); open('{tmp_path}/marks/%d' % os.getpid(), 'w').close()"
    (tmp_path / "marks").mkdir()
    python = fragile_python(tmp_path, f"{then}; time.sleep(300 if first else 0)")
    with SshDevice(options(python=python)).open(RUNTIME, 1, "cpu") as session:
        cutter = threading.Thread(
            target=lambda: (
                wait_until(lambda: bool(list((tmp_path / "marks").iterdir())), "the agent has begun"),
                board.cut(),
            )
        )
        cutter.start()
        with pytest.raises(MeasuringError, match="INVALID_PROTOBUF"):  # what the runtime says in the end
            session.load("bad", b"bad")
        cutter.join()
    assert len(list((tmp_path / "marks").iterdir())) == 2


def test_a_machine_that_is_gone_keeps_what_was_measured(
    board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.jsonl"
    monkeypatch.setitem(DEVICES, "ssh", functools.partial(SshDevice, pauses=(0.1,)))
    monkeypatch.setattr(sys, "argv", profile_command(path))
    before_sample(20, board.stop, monkeypatch)
    try:
        with pytest.raises(SystemExit, match="2"):
            cli.main()
    finally:
        board.start()
    error = capsys.readouterr().err
    assert re.search(r"error: no connection to board: .*Connection refused \(tried 2 times\); what was measured", error)
    kept = path.read_bytes()
    assert kept.count(b"\n") >= 10
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert path.read_bytes().startswith(kept)
    assert_complete(path, network_rounds=4)


def test_a_crash_there_costs_one_model(board: Sshd, tmp_path: Path) -> None:
    python = fragile_python(tmp_path, "os.abort()")
    connections = board.num_connections
    with SshDevice(options(python=python)).open(RUNTIME, 1, "cpu") as session:
        session.load("good", convert_subject(BLOCKS[0], RUNTIME, "fp32"))
        with pytest.raises(MeasuringError, match=r"the runtime crashed \(.*(134|SIGABRT)"):  # 128 + 6
            session.load("bad", b"bad")
        assert len(session.sample("good", 0.001).wall_ms) >= 5
    assert board.num_connections - connections == 2


def test_nothing_is_left_there(board: Sshd, tmp_path: Path) -> None:
    """Neither our files nor a process, not even one that hangs."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    python = f"env TMPDIR={temporary} {fragile_python(tmp_path, 'time.sleep(600)')}"
    with SshDevice(options(python=python)).open(RUNTIME, 1, "cpu") as session:
        session.load("good", convert_subject(BLOCKS[0], RUNTIME, "fp32"))
        assert len(list(temporary.glob("dmask-*/*"))) == 1
        session.patience = 2.0
        with pytest.raises(MeasuringError, match="no answer for 2 s: it hangs; it was killed"):
            session.load("bad", b"bad")
    wait_until(lambda: not agents_with(str(tmp_path)) and not list(temporary.glob("dmask-*")), "all is gone")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"python": "nope"}, r"no Python 'nope' on board; set --python to its path there"),
        ({"python": "/etc/hostname"}, r"no Python '/etc/hostname' on board; set --python to its path there"),
        ({"python": f"{sys.executable} -S"}, r"onnxruntime .* on board: .*not installed.*pip install onnxruntime"),
        ({"at": "ssh:nowhere.invalid"}, r"no connection to nowhere.invalid: .*not resolve.*; check the name, or"),
        ({"at": "ssh:refused"}, r"no connection to refused: .*Connection refused; start sshd there"),
        ({"at": "ssh:stranger"}, r"no connection to stranger: Host key verification failed\.; run 'ssh stranger true'"),
        ({"at": "ssh:locked"}, r"no connection to locked: .*Permission denied.*; set up a key \(ssh-copy-id locked\)"),
    ],
)
def test_what_stands_in_the_way_is_said_at_once(changed: dict[str, str], message: str, board: Sshd) -> None:
    with pytest.raises(DmaskError, match=message):
        SshDevice(options(**changed)).describe(RUNTIME)


def test_without_an_ssh_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DmaskError, match="no ssh client on this machine; install OpenSSH's"):
        SshDevice(options()).describe(RUNTIME)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=touch pwned",
        "-v",
        "root@-v",
        "ssh://-v",
        "$(touch pwned)",
        "`id`",
        "a'b",
        'a"b',
        "a b",
        "a\nb",
        "a;b",
    ],
)
def test_hosts_that_are_no_names_are_refused(host: str) -> None:
    with pytest.raises(DmaskError, match=f"not a host name: {re.escape(repr(host))}"):
        SshDevice(options(at=f"ssh:{host}"))


@pytest.mark.parametrize(
    "host", ["pi", "me@pi.local", "10.0.0.2", "fe80::1%eth0", "ssh://me@pi:2222", "ssh://[::1]:22"]
)
def test_hosts_may_be_what_ssh_takes(host: str) -> None:
    assert SshDevice(options(at=f"ssh:{host}")).host == host


@pytest.mark.parametrize(
    "word", ["$(touch {0})", "`touch {0}`", "'; touch {0}; '", '"; touch {0}; "', "a\ntouch {0}\n"]
)
def test_no_word_is_read_by_the_shell_there(word: str, board: Sshd, tmp_path: Path) -> None:
    """The word becomes an argument as it stands: here, the value of a variable."""
    word = word.format(tmp_path / "pwned")
    python = shlex.join(["env", f"WORD={word}", f"OUT={tmp_path / 'out'}", sys.executable, str(tmp_path / "tell.py")])
    (tmp_path / "tell.py").write_text(
        "import os, sys; open(os.environ['OUT'], 'w').write(os.environ['WORD']);"
        " code, sys.argv = sys.argv[2], ['-c', *sys.argv[3:]]; exec(code)"
    )
    SshDevice(options(python=python)).describe(RUNTIME)
    assert (tmp_path / "out").read_text() == word
    assert not (tmp_path / "pwned").exists()
