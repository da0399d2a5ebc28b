"""Native programs on the phone of the test suite: the real LiteRT, and programs that fail as real ones do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from dmask_mobile.errors import DmaskError
from latency_tables.devices.adb_client import Adb
from latency_tables.devices.device import DeviceLostError, DeviceTroubleError, MeasuringError, Samples
from latency_tables.devices.runner_session import RunnerSession
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.ncnn import NcnnRuntime
from tests.fake_phone import FakePhone, adb_server
from tests.latency_tables.devices.native_programs import litert_program, runner, script
from tests.processes import wait_until

pytestmark = pytest.mark.slow  # an adb server, and programs that hang

FOLDER = "/data/local/tmp/x"
GOOD = "Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9"
LOGGING = """for word; do case "$word" in --num_executions=*) runs=${word#*=} ;; esac; done
[ "$runs" ] || exit 1
log "Iteration 1 of $runs: 0.125 ms"
log "Model executed successfully $runs time(s) in 3.5 ms." """
COUNTING = """for word; do case "$word" in
param=*) grep -q ^Convolution "${word#*=}" || exit 1 ;;
shape=*) [ "$word" = "shape=[20,24,3]" ] || exit 255 ;;
esac; done
[ "$1" = 2000 ] && average=0.02 || average=0.01
printf '%20s  min = %7.2f  max = %7.2f  avg = %7.2f\\n' model.param 0.01 0.03 $average >&2"""


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePhone]:
    folder = tmp_path_factory.mktemp("phone")
    with adb_server(folder), FakePhone(folder / "phone") as phone:
        yield phone


@pytest.fixture
def adb(phone: FakePhone) -> Adb:
    adb = Adb(phone.serial)
    assert adb.shell("sh", "-c", f"rm -rf {FOLDER} && mkdir {FOLDER}").status == 0
    phone.commands.clear()
    return adb


@pytest.fixture(scope="module")
def model() -> bytes:
    return LiteRTRuntime().convert(nn.Conv2d(3, 8, 3).eval(), (1, 3, 20, 20), "fp32")


def session_of(adb: Adb, program: Path, delegate: str = "cpu", patience: float = 60.0) -> RunnerSession:
    return RunnerSession(adb, runner(program), FOLDER, ["taskset", "f0"], 2, delegate, patience)


@pytest.mark.parametrize("form", ["NEW", "OLD"])
def test_litert_measures_a_model(form: str, adb: Adb, phone: FakePhone, model: bytes, tmp_path: Path) -> None:
    session = session_of(adb, litert_program(tmp_path, form))
    session.load("a", model)
    samples = session.sample("a", 0.02)
    assert len(samples.wall_ms) == 1
    assert samples.wall_ms[0] > 0
    assert (samples.cpu_ms, samples.hot) == ((), False)
    assert (
        "exec env LD_LIBRARY_PATH=/data/local/tmp/x taskset f0 ./benchmark_model --graph=0.tflite" in phone.commands[-1]
    )
    assert "--num_threads=2" in phone.commands[-1]
    assert [path.name for path in (phone.temporary / "x").iterdir() if path.suffix] == ["0.tflite"]
    session.unload("a")
    session.unload("a")
    assert [path.name for path in (phone.temporary / "x").iterdir()] == ["benchmark_model"]


def test_a_model_that_litert_refuses_costs_one_measurement(adb: Adb, model: bytes, tmp_path: Path) -> None:
    session = session_of(adb, litert_program(tmp_path))
    with pytest.raises(MeasuringError, match=r"ended with status 1: .*ERROR: Failed to load model 0.tflite"):
        session.load("bad", b"no model")
    session.load("good", model)
    assert session.sample("good", 0.01).wall_ms[0] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill -SEGV $$", r"benchmark_model ended with SIGSEGV: .*; the session continues with the next model"),
        (
            "echo one; echo two >&2; exit 3",
            r"ended with status 3: one \| two; the session continues with the next model",
        ),
        (
            f"printf '{GOOD[:-3]}'",
            r"printed no time: Average inference .*Inference: 7976; get it for Android from https://",
        ),
        ("head -c 4000 /dev/urandom", r"benchmark_model printed no time"),
        (f"echo '{GOOD}' | sed s/79760.9/0/", r"printed no time: Average"),
    ],
)
def test_a_program_that_fails(text: str, message: str, adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    session = session_of(adb, script(tmp_path, "benchmark_model", text))
    with pytest.raises(MeasuringError, match=message):
        session.load("a", b"")
    assert [path.name for path in (phone.temporary / "x").iterdir()] == ["benchmark_model"]


@pytest.mark.parametrize(
    "words",
    [
        "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.",
        "GPU acceleration is unsupported on this platform.",
    ],
)
def test_a_delegate_that_takes_nothing_is_no_measurement_of_it(words: str, adb: Adb, tmp_path: Path) -> None:
    """Source of the words: TensorFlow, lite/tools/benchmark/benchmark_tflite_model.cc and lite/tools/delegates."""
    path = script(tmp_path, "benchmark_model", f"echo '{words}' >&2; echo '{GOOD}'")
    with pytest.raises(MeasuringError, match="benchmark_model ran it on the CPU: the delegate ran no part of it"):
        session_of(adb, path, delegate="gpu").load("a", b"")
    on_cpu = session_of(adb, path)
    on_cpu.load("a", b"")
    assert on_cpu.sample("a", 0.01).wall_ms == pytest.approx((79.7609,))
    other = script(tmp_path, "benchmark_model", f"echo '{words.replace('GPU', 'XNNPACK')}' >&2; echo '{GOOD}'")
    session_of(adb, other, delegate="gpu").load("a", b"")  # a second delegate had nothing left to take
    part = "Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate"
    path = script(tmp_path, "benchmark_model", f"echo '{part}' >&2; echo '{GOOD}'")
    with pytest.raises(MeasuringError, match=r"ran only a part of it on the delegate \(gpu\): 'Explicitly applied"):
        session_of(adb, path, delegate="gpu").load("a", b"")


def test_ncnn_on_a_gpu_needs_the_line_of_vulkan(adb: Adb, tmp_path: Path) -> None:
    model = NcnnRuntime().convert(nn.Conv2d(3, 8, 3).eval(), (1, 3, 24, 20), "fp32")
    with pytest.raises(MeasuringError, match=r"no line '\[0 NAME\]  queueC=' shows that Vulkan was used: 'model.param"):
        session_of(adb, script(tmp_path, "benchncnn", COUNTING), "gpu").load("a", model)
    session = session_of(
        adb, script(tmp_path, "benchncnn", f"echo '[0 Mali-G710]  queueC=0[2]' >&2; {COUNTING}"), "gpu"
    )
    session.load("a", model)
    session.try_out(model)


def test_a_program_whose_output_cannot_be_read_fails_at_the_start(adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    session = session_of(adb, script(tmp_path, "benchmark_model", "echo 'INFO: Inference: 0.08 s, as in version 9'"))
    with pytest.raises(
        DmaskError, match=r"cannot measure a small model on 'cpu': benchmark_model printed no time: INFO"
    ):
        session.try_out(b"model")
    assert [path.name for path in (phone.temporary / "x").iterdir()] == ["benchmark_model"]


def test_cores_that_are_offline_fail_at_the_start(adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    taskset = phone.folder / "system/bin/taskset"
    former = taskset.read_text()
    taskset.write_text('#!/bin/sh\necho "taskset: failed to set pid 9\'s affinity: Invalid argument" >&2; exit 1\n')
    try:
        with pytest.raises(DmaskError, match=r"does not run programs on these cores: taskset: failed .*with --cores"):
            session_of(adb, script(tmp_path, "benchmark_model", ""))
    finally:
        taskset.write_text(former)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill -KILL $$", r"killed twice from outside \(SIGKILL\), for example by a system without free memory"),
        ("echo 'write failed: No space left on device' >&2; exit 1", "no space on its disk left: .*write failed"),
    ],
)
def test_what_the_phone_lacks_is_no_failure_of_a_model(text: str, message: str, adb: Adb, tmp_path: Path) -> None:
    session = session_of(adb, script(tmp_path, "benchmark_model", f'[ "$1" = --help ] && exit\n{text}'))
    with pytest.raises(DeviceTroubleError, match=message):
        session.load("a", b"")


def test_a_program_that_was_killed_once_is_started_again(adb: Adb, tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; kill -KILL $$; }}"
    text = f'[ "$1" = --help ] && exit\n{once}\necho "{GOOD}"'
    session_of(adb, script(tmp_path, "benchmark_model", text)).load("a", b"")
    assert (tmp_path / "once").exists()  # it was killed


def test_a_program_that_does_not_even_begin_blames_no_model(adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    session = session_of(adb, script(tmp_path, "benchmark_model", f"echo '{GOOD}'"))
    session.load("a", b"")
    session.patience = 1.0
    phone.in_reach.clear()
    try:
        with pytest.raises(DeviceLostError, match=r"'sh' did not end after 1 s; .*the same command continues"):
            session.sample("a", 0.01)
    finally:
        phone.in_reach.set()


def test_a_program_that_hangs_is_killed(adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    path = script(
        tmp_path, "benchmark_model", f'[ "$1" = --help ] && exit; echo $$ >{phone.folder}/pid; exec sleep 600'
    )
    session = session_of(adb, path, patience=10.0)
    with pytest.raises(MeasuringError, match="benchmark_model has not ended after 10 s: it hangs; it was killed"):
        session.load("a", b"")
    pid = (phone.folder / "pid").read_text().strip()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the program has ended")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "echo 'CANNOT LINK EXECUTABLE: library \"libx.so\" not found' >&2; exit 1",
            r"cannot run '.*': CANNOT LINK.*libx",
        ),
        ("exec sleep 600", r"'.*benchmark_model': benchmark_model has not ended after 10 s: it hangs"),
    ],
)
def test_a_program_that_does_not_start_is_told_at_once(text: str, message: str, adb: Adb, tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=message + r".*https://ai.google.dev"):
        session_of(adb, script(tmp_path, "benchmark_model", text), patience=10.0)


def test_a_program_for_another_processor(adb: Adb, tmp_path: Path) -> None:
    path = tmp_path / "executor_runner"
    path.write_bytes(b"\x7fELF\2\1\1" + bytes(64))
    with pytest.raises(
        DmaskError, match=r"the phone cannot run '.*executor_runner': .*Exec format error; build it for"
    ):
        session_of(adb, path)


def test_executor_runner_speaks_to_the_log(adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    phone.write("log", "1 Model executed successfully 5 time(s) in 500.0 ms.\n")  # somebody else's
    session = session_of(adb, script(tmp_path, "executor_runner", LOGGING))
    session.load("a", b"")
    assert session.sample("a", 0.02) == Samples((0.125,), ())
    # Twenty runs tell that one takes 0.125 ms, so that 0.02 s are 160.
    counts = [int(found[1]) for command in phone.commands if (found := re.search(r"--num_executions=(\d+)", command))]
    assert counts == [20, 160]


def test_benchncnn_gets_the_structure_and_its_shape(adb: Adb, tmp_path: Path) -> None:
    model = NcnnRuntime().convert(nn.Conv2d(3, 8, 3).eval(), (1, 3, 24, 20), "fp32")
    session = session_of(adb, script(tmp_path, "benchncnn", COUNTING))
    session.load("a", model)
    assert session.sample("a", 0.1) == Samples((0.02,), ())
    with pytest.raises(MeasuringError, match="not an ncnn model: File is not a zip file"):
        session.load("b", b"no zip")


def test_libraries_beside_the_program_go_along(adb: Adb, phone: FakePhone, tmp_path: Path) -> None:
    folder = tmp_path / "it's a $(touch hacked) folder"
    path = script(folder, "benchmark_model", f'[ -e "$LD_LIBRARY_PATH/libdelegate.so" ] && echo "{GOOD}"')
    (folder / "libdelegate.so").write_bytes(b"library")
    session = session_of(adb, path)
    session.load("a", b"")
    assert session.sample("a", 0.01).wall_ms[0] == pytest.approx(79.7609)
    assert not list(phone.folder.rglob("hacked"))
