"""Sampling, with runs whose times are known."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dmask_mobile.errors import DmaskError
from latency_tables.devices import agent, agent_process, agent_session
from latency_tables.devices.agent_session import AgentSession, agent_command
from latency_tables.devices.device import DeviceLostError, DeviceTroubleError, MeasuringError
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.options import DeviceOptions
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from tests.processes import HANG_SECONDS


def taking(monkeypatch: pytest.MonkeyPatch, times_ms: Callable[[int], float]) -> Callable[[], None]:
    """A run whose n-th call takes ``times_ms(n)`` on a clock that nothing else moves."""
    now, numbers = [0.0], itertools.count()

    def run() -> None:
        now[0] += times_ms(next(numbers)) / 1e3

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(now[0] * 1e9))
    return run


def test_steady_runs_are_timed_for_the_time_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: 1.0), 0.02, agent.Core())
    assert found["wall_ms"] == [1.0] * 20
    assert len(found["cpu_ms"]) == 20


def test_a_slow_model_is_timed_five_times(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: 1000.0), 0.02, agent.Core())
    assert found["wall_ms"] == [1000.0] * agent.MIN_SAMPLES


def test_what_takes_less_than_a_millisecond_is_timed_in_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 runs of 10 us, the first power of two that takes a millisecond; 16 such samples take 20 ms."""
    found = agent.sample(taking(monkeypatch, lambda n: 0.01), 0.02, agent.Core())
    assert found["loops"] == 128
    assert found["wall_ms"] == [0.01] * 16
    shorter = agent.sample(taking(monkeypatch, lambda n: 0.01), 0.001, agent.Core())
    assert shorter["loops"] == 32  # five samples in a millisecond
    assert agent.sample(taking(monkeypatch, lambda n: 1.0), 0.02, agent.Core())["loops"] == 1


def test_warm_up_lasts_until_three_runs_are_as_long_as_the_three_before(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: max(1.0, 10.0 - n)), 1.0, agent.Core())
    assert found["wall_ms"][0] == 1.0


def test_an_unsteady_model_is_timed_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent.sample(taking(monkeypatch, lambda n: 1.0 + n % 3), 0.02, agent.Core())
    assert 38 <= len(found["wall_ms"]) <= 42  # four times 20 ms at 2 ms on average


def slowing(
    monkeypatch: pytest.MonkeyPatch, is_slow: Callable[[float], bool], ms: float = 1.0
) -> tuple[Callable[[], None], agent.Core]:
    """A run of ``ms``, twice as long where ``is_slow`` (seconds), and a core that has seen a quiet half minute."""
    begin = 0.0
    run = taking(monkeypatch, lambda n: ms * (2 if is_slow(time.perf_counter() - begin) else 1))
    monkeypatch.setattr(agent, "probe", lambda: 8e-5 if is_slow(time.perf_counter() - begin) else 4e-5)
    core = agent.Core()
    core.probes.extend([4e-5] * agent.MIN_PROBES)
    return run, core


def test_samples_on_a_core_that_something_slows_down_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 10 to 30 ms, of which 5 ms are warm-up: what is asked for is taken after it."""
    run, core = slowing(monkeypatch, lambda now: 0.0105 < now < 0.0305)
    found = agent.sample(run, 0.05, core)
    assert found["slowed"] is False
    assert found["wall_ms"] == [1.0] * len(found["wall_ms"])
    assert len(found["wall_ms"]) >= agent.MIN_SAMPLES


def test_a_slowed_core_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run, core = slowing(monkeypatch, lambda now: now < 0.7)
    found = agent.sample(run, 0.05, core)
    assert found["slowed"] is False
    assert found["wall_ms"] == [1.0] * 30
    assert core.waited == pytest.approx(0.7, abs=0.002)


def test_waiting_ends_and_takes_a_share_of_the_time_of_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    run, core = slowing(monkeypatch, lambda now: True)
    waits = []
    for _ in range(20):
        before = core.waited
        found = agent.sample(run, 0.05, core)
        waits.append(core.waited - before)
        assert found["slowed"] is True
        assert set(found["wall_ms"]) == {2.0}
        assert len(found["wall_ms"]) <= 26  # for no longer than on a quick core
        core.probes.extend([4e-5] * agent.MIN_PROBES)  # so that it does not become the usual speed
    assert waits[0] == pytest.approx(agent.MOST_WAITING, abs=0.01)
    others = time.perf_counter() - core.waited
    assert core.waited == pytest.approx(agent.WAITING_SHARE * others + agent.MOST_WAITING, rel=0.1)


def test_a_core_that_stays_slow_is_a_slow_core(monkeypatch: pytest.MonkeyPatch) -> None:
    run, core = slowing(monkeypatch, lambda now: True)
    found = [agent.sample(run, 0.05, core)["slowed"] for _ in range(5 * agent.MIN_PROBES)]
    assert found[0] is True
    assert found[-1] is False


def test_a_block_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run, core = slowing(monkeypatch, lambda now: now < 0.7)
    found = agent.sample(run, 0.02, core)
    assert found["slowed"] is True
    assert (found["wall_ms"], core.waited) == ([2.0] * 10, 0.0)


def test_a_core_knows_what_an_earlier_process_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "probe", lambda: 8e-5)
    fresh, told = agent.Core(), agent.Core()
    for _ in range(2 * agent.MIN_PROBES):
        fresh.note()
        told.note(4e-5)
    assert (fresh.quick, fresh.is_slowed()) == (8e-5, False)
    assert (told.quick, told.is_slowed()) == (4e-5, True)


def test_a_probe_is_of_a_real_clock() -> None:
    assert 1e-6 < agent.probe() < 0.1


def test_error_of_the_median_by_hand() -> None:
    # deviations 2, 1, 0, 1, 2: their median is 1
    assert agent.median_error([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(1.2533 * 1.4826 / 5**0.5 / 10)


@pytest.mark.parametrize(
    ("files", "group", "limit"),
    [
        ({"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "200000 100000"}, "0::/a/b", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", 0.0),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, "4:cpu:/", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", 0.0),
        ({}, "", 0.0),
    ],
)
def test_limit_of_a_container(files: dict[str, str], group: str, limit: float, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "groups").write_text(group + "\n")
    assert agent.cpu_limit(str(tmp_path), str(tmp_path / "groups")) == limit


@pytest.mark.parametrize(
    ("name", "content", "state"),
    [
        ("intel_pstate/no_turbo", "1", "off"),
        ("intel_pstate/no_turbo", "0", "on"),
        ("cpufreq/boost", "1", "on"),
        ("other", "1", ""),
    ],
)
def test_turbo_where_the_system_tells(
    name: str, content: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(agent, "SYSTEM_CPU", str(tmp_path))
    assert agent.turbo() == state


COREML = """
from enum import Enum
from types import SimpleNamespace

ComputeUnit = Enum("ComputeUnit", "CPU_ONLY CPU_AND_GPU CPU_AND_NE ALL")
opened = []


class MLModel:
    def __init__(self, path, compute_units):
        opened.append((path, compute_units.name))

    def get_spec(self):
        shape = SimpleNamespace(multiArrayType=SimpleNamespace(shape=[1, 2, 3, 3]))
        return SimpleNamespace(description=SimpleNamespace(input=[SimpleNamespace(name="input", type=shape)]))

    def predict(self, given):
        return {"output": given["input"].sum(axis=(2, 3))}


models = SimpleNamespace(MLModel=MLModel)
"""


@pytest.fixture
def no_coremltools() -> Iterator[None]:
    """As if it had not been imported."""

    def take() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == "coremltools"]
        return {name: sys.modules.pop(name) for name in names}

    before = take()
    yield
    take()
    sys.modules.update(before)


@pytest.mark.usefixtures("no_coremltools")
@pytest.mark.parametrize(
    ("delegate", "units"), [("cpu", "CPU_ONLY"), ("gpu", "CPU_AND_GPU"), ("npu", "CPU_AND_NE"), ("all", "ALL")]
)
def test_core_ml_runs_on_the_units_that_were_asked_for(
    delegate: str, units: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """coremltools predicts on a Mac only; what stands for it here has its interface as its documentation tells it."""
    (tmp_path / "coremltools.py").write_text(COREML)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = agent.open_coreml("m.mlpackage", 1, delegate)
    assert sys.modules["coremltools"].opened == [("m.mlpackage", units)]
    model.run()
    assert model.output() == pytest.approx(agent.random_input((1, 2, 3, 3)).sum(axis=(2, 3)))


COMPUTE_PLAN = """
from types import SimpleNamespace

weights = {"conv1": 0.5, "conv2": 0.25, "relu1": 0.25}
operations = [SimpleNamespace(operator_name=f"ios16.{name[:-1]}", name=name) for name in weights]
operations.append(SimpleNamespace(operator_name="const", name="const1"))
main = SimpleNamespace(block=SimpleNamespace(operations=operations))


class MLComputePlan:
    model_structure = SimpleNamespace(program=SimpleNamespace(functions={"main": main}))

    @classmethod
    def load_from_path(cls, path, compute_units):
        assert (path, compute_units.name) == ("m.mlmodelc", "CPU_AND_NE")
        return cls()

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        weight = weights.get(operation.name)
        return None if weight is None else SimpleNamespace(weight=weight)
"""


@pytest.mark.usefixtures("no_coremltools")
def test_core_ml_shares_are_added_up_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above: the interface of coremltools' compute plan, which is there on a Mac only."""
    compiling = "from types import SimpleNamespace\nutils = SimpleNamespace(compile_model=lambda path: 'm.mlmodelc')\n"
    for name, text in {
        "__init__": COREML.replace("models = ", "from . import models  # "),
        "models/__init__": compiling,
        "models/compute_plan": COMPUTE_PLAN,
    }.items():
        path = tmp_path / "coremltools" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert agent.coreml_shares("m.mlpackage", "npu") == {"ios16.conv": 0.75, "ios16.relu": 0.25}


def ask(lines: list[bytes], *arguments: str) -> list[bytes]:
    """What an agent of its own answers."""
    command = [sys.executable, "-P", agent.__file__, *arguments]
    done = subprocess.run(
        command, input=b"\n".join(lines) + b"\n", capture_output=True, check=True, timeout=HANG_SECONDS
    )
    return done.stdout.splitlines()


def test_a_request_that_fails_is_answered_and_the_next_one_is_carried_out() -> None:
    lines = [
        b'{"do": "sample", "key": "never loaded", "seconds": 1, "limit": 60}',
        b"no JSON",
        b'{"do": "dance", "limit": 60}',
        b'{"do": "describe", "limit": 60}',
    ]
    *errors, last = ask(lines, "onnxruntime", "1", "cpu", "")
    assert [error.startswith(b'dmask:{"error": ') for error in errors] == [True] * 3
    assert b"no request 'dance'" in errors[2]
    assert json.loads(last.removeprefix(b"dmask:"))["runtime_version"] == metadata.version("onnxruntime")


def test_what_others_print_is_no_answer(tmp_path: Path) -> None:
    """A login script that prints, as those of many machines do."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\necho welcome\nprintf 'no newline: '\necho\nexec {shlex.quote(sys.executable)} \"$@\"\n"
    )
    python.chmod(0o700)
    device = LocalDevice(DeviceOptions(python=shlex.quote(str(python))))
    assert device.describe(OnnxRuntime()) == LocalDevice().describe(OnnxRuntime())


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(DmaskError, match="'no/python' does not start: No such file or directory; set --python"):
        LocalDevice(DeviceOptions(python="no/python")).describe(OnnxRuntime())


def agent_says(python: str, folder: Path) -> LocalDevice:
    """This machine by a shell script for a Python."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{python}\n")
    script.chmod(0o700)
    return LocalDevice(DeviceOptions(python=shlex.quote(str(script))))


def test_an_answer_after_words_without_a_newline(tmp_path: Path) -> None:
    device = agent_says(f"printf 'last login: '\nexec {shlex.quote(sys.executable)} \"$@\"", tmp_path)
    assert device.describe(OnnxRuntime()) == LocalDevice().describe(OnnxRuntime())


def test_more_threads_than_cores_are_refused_before_a_model_is_blamed() -> None:
    here = os.sched_getaffinity(0)
    with ThreadPoolExecutor(1) as pool:  # of that thread alone, and of what it starts

        def opened() -> None:
            os.sched_setaffinity(0, [max(here)])
            with LocalDevice().open(OnnxRuntime(), 2, "cpu"):
                pass

        with pytest.raises(DmaskError, match=r"2 threads on the 1 cores that it may use .*; .*fewer --threads"):
            pool.submit(opened).result()


def test_cores_that_cannot_be_had() -> None:
    with pytest.raises(
        DmaskError, match=r"the cores \[9999\] cannot be used: Invalid argument; choose others with --cores"
    ):
        LocalDevice(DeviceOptions(python=shlex.quote(sys.executable), cores=(9999,))).describe(OnnxRuntime())


def test_no_model_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after an orderly end nor when the agent was killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = OnnxRuntime().convert(torch.nn.ReLU(), (1, 1, 2, 2), "fp32")
    for kill in (False, True):
        with LocalDevice().open(OnnxRuntime(), 1, "cpu") as session:
            session.load("a", model)
            assert len([path for path in tmp_path.rglob("*") if path.is_file() and path.name.isdecimal()]) == 1
            if kill:
                assert session.process.pid is not None
                os.kill(session.process.pid, signal.SIGKILL)
        assert [path.name for path in tmp_path.iterdir()] == []


def test_each_process_has_its_own_last_words(tmp_path: Path) -> None:
    told: list[str] = []

    def link(status: int, stderr: str) -> str:
        told.append(stderr)
        return "cut"

    session = agent_session.AgentSession(["sh", "-c", "echo last words >&2; exit 3"], link, pauses=(0.0, 0.0))
    with pytest.raises(DeviceLostError, match=r"cut \(tried 3 times\)"):
        session.describe()
    session.close()
    assert told == ["last words\n"] * 3


def test_a_process_that_takes_nothing_is_killed_as_one_that_says_nothing() -> None:
    session = agent_session.AgentSession(["sleep", "600"], patience=1.0)
    with pytest.raises(MeasuringError, match="no answer for 1 s: it hangs; it was killed"):
        session.load("a", bytes(1_000_000))  # more than a pipe holds
    session.close()


def test_a_model_is_blamed_at_the_second_silence_where_a_link_may_be_away() -> None:
    told: list[int] = []
    session = agent_session.AgentSession(
        ["sleep", "600"], lambda status, stderr: told.append(status), patience=0.5, pauses=(0.0,) * 9, asks_twice=True
    )
    for _ in range(2):
        with pytest.raises(MeasuringError, match="it hangs; it was killed"):
            session.load("a", b"")
    session.close()
    assert told == [-signal.SIGKILL] * 4


def agent_with(change: str) -> AgentSession:
    """This machine's Python runs the agent after a change of what it answers to ``sample``."""
    marker = b"            return sample(self.models[key].run, request"
    source = agent_session.SOURCE.replace(marker, b"            " + change.encode() + b"\n" + marker)
    assert source != agent_session.SOURCE
    session = AgentSession(agent_command([sys.executable], OnnxRuntime(), 1, "cpu", ()))
    session.process.source = source
    session.process.command[2] = session.process.command[2].replace(str(len(agent_session.SOURCE)), str(len(source)))
    return session


@pytest.fixture(scope="module")
def model() -> bytes:
    return OnnxRuntime().convert(torch.nn.ReLU(), (1, 1, 2, 2), "fp32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "raise OSError(errno.ENOSPC, 'No space')",
            "no space on its disk left: OSError: .*No space; free some space there",
        ),
        ("raise OSError(errno.EDQUOT, 'Quota')", "no space on its disk left: OSError: .*Quota"),
        ("raise OSError(errno.EMFILE, 'Too many')", "no file handles left: OSError: .*Too many"),
        ("raise MemoryError('weights')", "no memory left: MemoryError: weights"),
        ("raise RuntimeError('[ONNXRuntimeError] : std::bad_alloc')", "no memory left: RuntimeError: .*bad_alloc"),
        ("raise RuntimeError('write: No space left on device')", "no space on its disk left: RuntimeError: write"),
        (
            "try: raise OSError(errno.ENFILE, 'system')\n            except OSError: raise KeyError('model')",
            "no file handles left: KeyError: 'model'",
        ),
        (
            "sys.stderr.write('terminate called after throwing: std::bad_alloc\\n'); sys.stderr.flush(); os.abort()",
            "no memory left: terminate called after throwing: std::bad_alloc",
        ),
    ],
)
def test_what_the_machine_lacks_is_no_failure_of_a_model(change: str, message: str, model: bytes) -> None:
    session = agent_with(change)
    session.load("a", model)
    with pytest.raises(DeviceTroubleError, match=message):
        session.sample("a", 0.001)
    session.close()


def test_a_full_disk_is_no_failure_of_a_model(model: bytes) -> None:
    """The real thing: a file system that takes no byte."""
    session = agent_with("open('/dev/full', 'w').write('x' * 100000)")
    session.load("a", model)
    with pytest.raises(DeviceTroubleError, match=r"no space on its disk left: OSError: .*No space left on device"):
        session.sample("a", 0.001)
    session.close()


def test_a_process_killed_from_outside_is_asked_again_once(model: bytes, tmp_path: Path) -> None:
    once = tmp_path / "once"
    session = agent_with(
        f"if not os.path.exists({str(once)!r}): open({str(once)!r}, 'w').close(); os.kill(os.getpid(), 9)"
    )
    session.load("a", model)
    assert len(session.sample("a", 0.001).wall_ms) >= 5
    session.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_again_ends_the_profile(number: signal.Signals, model: bytes) -> None:
    session = agent_with(f"os.kill(os.getpid(), {int(number)}); time.sleep(60)")
    session.load("a", model)
    with pytest.raises(
        DeviceTroubleError, match=rf"killed twice from outside \({number.name}\).*same command continues"
    ):
        session.sample("a", 0.001)
    session.close()


def test_a_crash_is_a_failure_of_the_model(model: bytes) -> None:
    session = agent_with("os.kill(os.getpid(), 11)")
    session.load("a", model)
    with pytest.raises(MeasuringError, match=r"the runtime crashed \(SIGSEGV\)"):
        session.sample("a", 0.001)
    session.close()


def test_a_long_error_is_cut(model: bytes) -> None:
    session = agent_with("raise ValueError('x' * 30_000_000)")
    session.load("a", model)
    with pytest.raises(MeasuringError, match=r"^ValueError: x+") as caught:
        session.sample("a", 0.001)
    assert len(str(caught.value)) <= agent.MAX_ERROR
    session.close()


def test_output_without_an_end_is_a_hang() -> None:
    session = AgentSession(["sh", "-c", "yes x | tr -d '\\n'"], patience=1.0)
    with pytest.raises(MeasuringError, match="no answer for 1 s: it hangs; it was killed"):
        session.describe()
    session.close()


def test_an_answer_without_an_end_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "MAX_ANSWER_BYTES", 100_000)
    session = AgentSession(["sh", "-c", f"printf {agent.MARK}; yes x | tr -d '\\n'"])
    with pytest.raises(MeasuringError, match="an answer of more than 100,000 bytes: it hangs; it was killed"):
        session.describe()
    session.close()


def test_what_a_runtime_writes_to_stderr_is_bounded(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "MAX_STDERR_BYTES", 1000)
    session = agent_with("sys.stderr.write('w' * 900); sys.stderr.flush()")
    session.load("a", model)
    for _ in range(5):
        session.sample("a", 0.0)
    assert os.fstat(session.process._stderr.fileno()).st_size <= 1800
    session.close()


def test_a_hang_that_keeps_pythons_lock_ends_too() -> None:
    """ExecuTorch keeps it while it computes: a thread of the agent would never see that nobody is left."""
    source = agent_session.SOURCE.replace(b"GRACE_SECONDS = 5 ", b"GRACE_SECONDS = 0.2 ")
    hang = b"import ctypes; ctypes.PyDLL(None).sleep(600)"  # a PyDLL does not let the lock go
    source = source.replace(b"            return describe(self.runtime)", b"            " + hang)
    assert hang in source
    command = agent_session.agent_command([sys.executable], OnnxRuntime(), 1, "cpu", ())
    process = subprocess.Popen(
        [*command[:2], command[2].replace(str(len(agent_session.SOURCE)), str(len(source))), *command[3:]],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None  # it stays open: nothing else ends the agent
    assert process.stderr is not None
    process.stdin.write(source + b'{"do": "describe", "limit": 1}\n')
    process.stdin.flush()
    assert process.wait(HANG_SECONDS) == 1
    assert b"Timeout" in process.stderr.read()
    process.stdin.close()
    process.stderr.close()
