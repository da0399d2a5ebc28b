"""A phone over adb: what it is, how it is prepared and restored, its temperature, and both ways to measure on it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.space import SearchSpace
from latency_tables.devices import adb_client, phone_state
from latency_tables.devices.adb import AdbDevice
from latency_tables.devices.adb_client import Adb, chosen_phone
from latency_tables.devices.agent_session import AgentSession
from latency_tables.devices.device import Conditions, DeviceInfo, DeviceLostError, Samples, Session
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.phone_state import Thermometer, WatchedSession, alone, prepared
from latency_tables.diagnosis.discovery import seen_phone
from latency_tables.diagnosis.doctor import judge_device
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup, setup_for
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import BlockRow, ConditionsRow
from latency_tables.table.table import LatencyTable
from tests.fake_phone import CLOCKS_KHZ, FakePhone
from tests.latency_tables.contract import BLOCK, SHAPE, check_device, check_output
from tests.latency_tables.devices.native_programs import litert_program, script
from tests.processes import DMASK, HANG_SECONDS, wait_until

pytestmark = pytest.mark.slow  # an adb server for each test

GOOD = "Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9"
PIXEL = DeviceInfo(
    device="Google Pixel 8 (arm64-v8a)",
    system="Android 14",
    cores=9,
    runtime_version="",
    soc="Tensor G3",
    clocks_mhz=(1704,) * 4 + (2367,) * 4 + (2914,),
)
SETTINGS = "settings/stay_on_while_plugged_in"
QUICK = ProfileSettings(
    rounds=2, network_rounds=1, seconds_per_block=0.001, seconds_per_network=0.001, metric_networks=0
)


@pytest.fixture
def program(tmp_path: Path) -> str:
    return str(script(tmp_path / "programs", "benchmark_model", f'echo "{GOOD}"'))


def agent_device(**settings: object) -> AdbDevice:
    """The phone's Python is this one."""
    return AdbDevice(DeviceOptions(at="adb", python=sys.executable), **settings)  # type: ignore[arg-type]


def agent_of(session: Session) -> AgentSession:
    """The session over the agent inside a phone's session."""
    assert isinstance(session, WatchedSession)
    assert isinstance(session.session, AgentSession)
    return session.session


def test_identity_with_a_native_program(phone: FakePhone, program: str) -> None:
    options = DeviceOptions(at=f"adb:{phone.serial}", runner=program, runner_flags=("--a",))
    digest = hashlib.sha256(Path(program).read_bytes()).hexdigest()[:12]
    found = AdbDevice(options).describe(LiteRTRuntime())
    assert found == PIXEL._replace(runtime_version=f"benchmark_model {digest} --a")
    assert len(CLOCKS_KHZ) == found.cores


def test_identity_with_the_agent(phone: FakePhone) -> None:
    import onnxruntime

    assert agent_device().describe(OnnxRuntime()) == PIXEL._replace(runtime_version=onnxruntime.__version__)
    with pytest.raises(
        DmaskError, match=r"onnxruntime does not run on Google Pixel 8 .*: .*exit status 127.*install it"
    ):
        AdbDevice(DeviceOptions(at="adb", python="no_such_python")).describe(OnnxRuntime())


def test_an_emulator_and_a_phone_that_tells_little(phone: FakePhone, program: str) -> None:
    phone.write("props/ro.boot.qemu", "1\n")
    phone.write("props/ro.product.manufacturer", "Fairphone\n")
    phone.write("props/ro.product.model", "FAIRPHONE 5\n")
    phone.write("props/ro.soc.model", None)
    for clock in phone.folder.glob("sys/devices/system/cpu/cpu*/cpufreq/*"):
        clock.unlink()
    found = AdbDevice(DeviceOptions(at="adb", runner=program)).describe(LiteRTRuntime())
    assert found[:3] == ("FAIRPHONE 5 (arm64-v8a)", "Android 14", 9)
    assert (found.soc, found.clocks_mhz, found.emulated) == ("", (), True)
    (phone.folder / "system/bin/getprop").unlink()
    with pytest.raises(
        DmaskError, match=r"'127.*' is not an Android phone: .*getprop.*not found; reach other machines by ssh"
    ):
        AdbDevice(DeviceOptions(at="adb", runner=program)).describe(LiteRTRuntime())


@pytest.mark.parametrize(
    ("threads", "cores", "mask"),
    [(1, (), 1 << 8), (3, (), 1 << 8 | 1 << 7 | 1 << 6), (2, (0, 5), 1 | 1 << 5)],
)
def test_fastest_cores_or_those_asked_for(
    threads: int, cores: tuple[int, ...], mask: int, phone: FakePhone, program: str
) -> None:
    options = DeviceOptions(at="adb", runner=program, cores=cores)
    with AdbDevice(options).open(LiteRTRuntime(), threads, "cpu") as session:
        session.load("a", b"")
        assert session.sample("a", 0.01) == Samples((pytest.approx(79.7609),), ())  # type: ignore[arg-type]
        assert {int(word, 16) for word in phone.read("masks").split()} == {mask}


def test_cores_that_cannot_be_had(phone: FakePhone, program: str, tmp_path: Path) -> None:
    device = AdbDevice(DeviceOptions(at="adb", runner=program, cores=(9,)))
    with (
        pytest.raises(DmaskError, match="the phone has no core 9; it has 0, 1, 2"),
        device.open(LiteRTRuntime(), 1, "cpu"),
    ):
        pass
    ncnn = script(tmp_path, "benchncnn", "")
    device = AdbDevice(DeviceOptions(at="adb", runner=str(ncnn), cores=(8,)))
    from latency_tables.runtimes.ncnn import NcnnRuntime

    with pytest.raises(DmaskError, match="benchncnn chooses its cores itself; leave out --cores"):
        device.describe(NcnnRuntime())


def test_cores_that_are_off_or_tell_nothing(phone: FakePhone, program: str) -> None:
    """The fastest one is off: that is said at once. One whose clock cannot be read is no crash."""
    cpus = phone.folder / "sys/devices/system/cpu"
    (cpus / "cpu3/cpufreq/cpuinfo_max_freq").unlink()
    (cpus / "cpu4/cpufreq/cpuinfo_max_freq").write_text("<unknown>\n")
    device = AdbDevice(DeviceOptions(at="adb", runner=program))
    assert device.describe(LiteRTRuntime()).clocks_mhz == (1704,) * 3 + (2367,) * 3 + (2914,)
    (cpus / "cpu8/online").write_text("0\n")
    message = r"core 8 of phone '127.*' is switched off \(offline\); .*--cores"
    with pytest.raises(DmaskError, match=message), device.open(LiteRTRuntime(), 1, "cpu"):
        pass
    with AdbDevice(DeviceOptions(at="adb", runner=program, cores=(7,))).open(LiteRTRuntime(), 1, "cpu"):
        pass


def test_a_program_that_cannot_measure_fails_before_the_first_model(phone: FakePhone, tmp_path: Path) -> None:
    path = script(tmp_path / "programs", "benchmark_model", "echo 'results: see the file'")
    with (
        pytest.raises(DmaskError, match="cannot measure a small model on 'cpu': benchmark_model printed no time"),
        AdbDevice(DeviceOptions(at="adb", runner=str(path))).open(LiteRTRuntime(), 1, "cpu"),
    ):
        pass
    assert (phone.read(SETTINGS), list(phone.temporary.iterdir())) == ("1", [])


def test_a_phone_by_usb_and_wifi_is_one_phone(phone: FakePhone) -> None:
    """The second way to a phone that is in use by another measurement."""
    phone.write("props/ro.serialno", "8A1X0ABCD\n")
    with (
        prepared(Adb(phone.serial)),
        pytest.raises(DmaskError, match="phone '8A1X0ABCD' is in use by another measurement"),
        alone("8A1X0ABCD"),
    ):
        pass


def test_an_unknown_thermal_state_is_said(phone: FakePhone) -> None:
    phone.write("thermal", None)
    seen = seen_phone(chosen_phone())
    assert seen.thermal_unknown == "it has no thermal service that reports a status"
    finding = judge_device(seen)
    assert finding.verdict == "note"
    assert "its thermal state is unknown: it has no thermal service" in finding.found
    phone.write("thermal", "0\n")
    assert judge_device(seen_phone(chosen_phone())).verdict == "ok"


@pytest.mark.parametrize("former", ["1\n", "0\n", None])
def test_prepared_and_restored(former: str | None, phone: FakePhone, program: str) -> None:
    phone.write(SETTINGS, former)
    with AdbDevice(DeviceOptions(at="adb", runner=program)).open(LiteRTRuntime(), 1, "cpu"):
        assert phone.read(SETTINGS) == "2"  # BatteryManager.BATTERY_PLUGGED_USB
        assert phone.read("fixed_performance") == "true"
        assert (phone.temporary / "dmask-mobile").is_dir()
    assert phone.read(SETTINGS) == (former or "").strip()
    assert phone.read("fixed_performance") == "false"
    assert list(phone.temporary.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt("mine"), ValueError("mine"), DeviceLostError("mine")])
def test_restored_after_an_error(error: BaseException, phone: FakePhone) -> None:
    with pytest.raises(type(error), match="mine"), prepared(Adb(phone.serial)):
        raise error
    assert (phone.read(SETTINGS), phone.read("fixed_performance")) == ("1", "false")
    assert list(phone.temporary.iterdir()) == []


def test_interrupted_while_it_is_prepared(phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Adb.shell

    def interrupted(self: Adb, *words: str, seconds: float = 30.0) -> object:
        output = real(self, *words, seconds=seconds)
        if words[-1] == "true":
            raise KeyboardInterrupt
        return output

    monkeypatch.setattr(Adb, "shell", interrupted)
    with pytest.raises(KeyboardInterrupt), prepared(Adb(phone.serial)):
        raise AssertionError("it was interrupted before")
    assert (phone.read(SETTINGS), phone.read("fixed_performance")) == ("1", "false")


def test_a_phone_that_does_not_know_fixed_performance(phone: FakePhone) -> None:
    phone.write("fixed_performance", None)
    with prepared(Adb(phone.serial)):
        pass
    assert phone.read(SETTINGS) == "1"


def test_a_phone_whose_settings_cannot_be_changed(phone: FakePhone) -> None:
    (phone.folder / "system/bin/svc").write_text("#!/bin/sh\necho SecurityException >&2; exit 255\n")
    message = (
        r"settings of phone '.*' cannot be changed: SecurityException; look for 'USB debugging \(Security settings\)'"
    )
    with pytest.raises(DmaskError, match=message), prepared(Adb(phone.serial)):
        pass


def test_what_was_cut_off_is_made_good_by_the_next_session(phone: FakePhone) -> None:
    """The former setting is not lost with the connection, nor taken for the one that was set meanwhile."""
    adb = Adb(phone.serial)
    with pytest.raises(DeviceLostError, match="is not attached"), prepared(adb):
        phone.unplug()  # so that nothing can be restored at the end
    phone.plug_in()
    assert phone.read(SETTINGS) == "2"
    with prepared(adb):
        assert phone.read(SETTINGS) == "2"
    assert phone.read(SETTINGS) == "1"
    assert list(phone.temporary.iterdir()) == []


def test_one_session_at_a_time(phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_state, "SURVEY_SECONDS", 0.1)
    adb = Adb(phone.serial)
    with prepared(adb):
        with (
            pytest.raises(
                DmaskError, match=r"phone '127.*' is in use by another measurement; wait until that has ended"
            ),
            prepared(adb),
        ):
            pass
        phone.commands.clear()
        seen = seen_phone(chosen_phone())
        assert "is in use by another measurement" in seen.problem
        assert judge_device(seen).verdict == "note"
        assert phone.commands == []
        assert phone.read(SETTINGS) == "2"


class Steps:
    """A clock that moves when somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


class Quick:
    """A session whose every sample takes some seconds of a clock."""

    def __init__(self, steps: Steps, seconds: float) -> None:
        self.steps, self.seconds = steps, seconds

    def sample(self, key: str, seconds: float) -> Samples:
        self.steps.now += self.seconds
        return Samples((1.0,), ())


def watched(phone: FakePhone, seconds: float, patience: float = 600.0) -> tuple[WatchedSession, Steps]:
    steps = Steps()
    thermometer = Thermometer(Adb(phone.serial), patience, steps.sleep, steps.clock)
    return WatchedSession(Quick(steps, seconds), thermometer), steps  # type: ignore[arg-type]


def test_it_waits_until_the_phone_is_cool(phone: FakePhone) -> None:
    phone.write("thermal", "3\n2\n1\n0\n")
    session, steps = watched(phone, 0.5)
    assert session.sample("a", 0.1) == Samples((1.0,), (), hot=False)
    assert steps.slept == [5.0] * 3
    for _ in range(8):
        session.sample("a", 0.1)
    assert phone.read("dumpsys").split() == ["thermalservice"] * 4  # 4.5 s after the last look
    session.sample("a", 0.1)
    assert phone.read("dumpsys").split() == ["thermalservice"] * 5


def test_hot_afterwards(phone: FakePhone) -> None:
    phone.write("thermal", "0\n1\n0\n")
    session, _ = watched(phone, 6.0)
    assert [session.sample("a", 0.1).hot for _ in range(2)] == [True, False]


def test_patience_has_an_end_and_comes_back_when_the_phone_is_cool(phone: FakePhone) -> None:
    phone.write("thermal", "2\n")
    session, steps = watched(phone, 6.0, patience=20.0)
    assert [session.sample("a", 0.1).hot for _ in range(3)] == [True] * 3
    assert steps.slept == [5.0] * 4
    phone.write("thermal", "0\n0\n2\n")
    assert [session.sample("a", 0.1).hot for _ in range(3)] == [False, True, True]
    assert steps.slept == [5.0] * 8


@pytest.mark.usefixtures("sigint")
def test_a_signal_ends_the_wait_for_a_cool_phone(phone: FakePhone) -> None:
    phone.write("thermal", "2\n")
    session, steps = watched(phone, 6.0)
    with stop_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(StoppedError, match="waiting for the phone to cool stopped by SIGINT"):
            session.sample("a", 0.1)
    assert steps.slept == []


def test_temperature_and_battery(phone: FakePhone) -> None:
    with agent_device().open(OnnxRuntime(), 1, "cpu") as session:
        assert session.conditions() == Conditions(thermal_status=0, battery_percent=81.0, battery_celsius=28.7)
        phone.write("battery", "nothing\n")
        assert session.conditions() == Conditions(0, None, None)
    phone.write("thermal", None)
    session, steps = watched(phone, 1.0)
    assert session.conditions() == Conditions(None, None, None)
    assert session.sample("a", 0.1).hot is False
    assert steps.slept == []


def test_contract_by_the_agent(phone: FakePhone) -> None:
    check_device(agent_device(), OnnxRuntime())
    wait_until(lambda: not list(phone.temporary.iterdir()), "the agents have cleaned up")
    assert phone.read(SETTINGS) == "1"


def test_contract_by_litert_program(phone: FakePhone, tmp_path: Path) -> None:
    options = DeviceOptions(at="adb", runner=str(litert_program(tmp_path / "programs")))
    check_device(AdbDevice(options), LiteRTRuntime())
    assert list(phone.temporary.iterdir()) == []


def test_the_agent_computes_what_pytorch_does(phone: FakePhone) -> None:
    torch.manual_seed(0)
    module = build_block(BLOCK).eval()
    with agent_device().open(OnnxRuntime(), 1, "cpu") as session:
        session.load("a", OnnxRuntime().convert(module, SHAPE, "fp32"))
        check_output(agent_of(session).output("a"), module, "fp32")
        assert list((phone.temporary / "dmask-mobile").glob("dmask-*/0"))  # its models lie below our folder


SPACE_FILE = Path(__file__).parents[2] / "golden" / "space_v1.yaml"
SPACE = SearchSpace.read(SPACE_FILE)


def setup_on(device: AdbDevice, runtime: OnnxRuntime | LiteRTRuntime) -> Setup:
    return Setup((device,), runtime, reached=device.options)


def at_command(phone: FakePhone, word: str, count: int, action: Callable[[], None]) -> None:
    """``action`` when the phone runs a command with ``word`` for the ``count``-th time."""
    seen = 0

    def on_command(command: str) -> None:
        nonlocal seen
        seen += word in command
        if seen == count:
            action()

    phone.on_command = on_command


def test_a_profile_by_the_agent_outlives_a_lost_connection(phone: FakePhone, tmp_path: Path) -> None:
    def replug() -> None:
        phone.unplug()
        phone.plug_in()

    at_command(phone, "dumpsys battery", 3, replug)  # after the first round of blocks
    device = agent_device(pauses=(0.2,) * 50)
    table = profile_space(SPACE, setup_on(device, OnnxRuntime()), QUICK, tmp_path / "t.jsonl")
    assert table.failures == {}
    assert set(table.blocks) == set(blocks_of(SPACE))
    assert table.head.device == PIXEL.device
    assert any(isinstance(row, ConditionsRow) and row.battery_celsius == 28.7 for row in table.rows)


def test_an_agent_that_is_gone_for_good(phone: FakePhone) -> None:
    model = OnnxRuntime().convert(nn.Conv2d(3, 8, 3).eval(), (1, 3, 20, 20), "fp32")

    def lose() -> None:
        with agent_device(pauses=(0.01, 0.01)).open(OnnxRuntime(), 1, "cpu") as session:
            session.load("a", model)
            phone.unplug()
            session.load("b", model)

    with pytest.raises(DeviceLostError, match=r"is not attached \(tried 3 times\).*the same command continues"):
        lose()


@pytest.mark.parametrize("size", [100, 10_000_000])
def test_a_phone_that_falls_silent_blames_no_model(
    size: int, phone: FakePhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of a model that is sent to it."""
    run, model = adb_client._run, OnnxRuntime().convert(nn.Conv2d(3, 8, 3).eval(), (1, 3, 20, 20), "fp32")

    def lose() -> None:
        with agent_device().open(OnnxRuntime(), 1, "cpu") as session:
            session.load("a", model)
            agent_of(session).patience = 1.0
            monkeypatch.setattr(adb_client, "_run", lambda command, seconds: run(command, min(seconds, 5.0)))
            phone.in_reach.clear()
            session.load("b", bytes(size))

    with pytest.raises(DeviceLostError, match=r"'true' did not end after .* s; .*the same command continues"):
        lose()


def test_a_phone_that_is_silent_for_a_while_blames_no_model(phone: FakePhone) -> None:
    model = OnnxRuntime().convert(nn.Conv2d(3, 8, 3).eval(), (1, 3, 20, 20), "fp32")
    with agent_device().open(OnnxRuntime(), 1, "cpu") as session:
        session.load("a", model)
        agent = agent_of(session)
        agent.patience = 2.0
        phone.in_reach.clear()
        threading.Timer(3.0, phone.in_reach.set).start()
        threading.Timer(3.0, setattr, (agent, "patience", HANG_SECONDS)).start()
        assert len(agent.sample("a", 0.001).wall_ms) >= 5


def test_an_adb_that_fails_blames_no_model(phone: FakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "adb", "echo 'cannot connect to daemon' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    adb = Adb(phone.serial)
    for action in (lambda: adb.shell("true"), lambda: adb.push(Path(__file__), f"{phone_state.TEMPORARY}/x")):
        with pytest.raises(DeviceLostError, match="'adb devices' fails: cannot connect to daemon"):
            action()


def test_ctrl_c_in_the_terminal_restores_the_phone(phone: FakePhone, tmp_path: Path) -> None:
    """A terminal signals the whole process group; adb must not take part in that."""
    path = tmp_path / "t.jsonl"
    command = [DMASK, "profile", str(SPACE_FILE), "-o", str(path), "--rounds", "50"]
    command += ["--device", f"adb:{phone.serial}", "--python", sys.executable]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 30, "30 lines of the table")
    assert phone.read(SETTINGS) == "2"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert b"profiling stopped by SIGINT" in errors
    assert LatencyTable.read(path).failures == {}
    assert (phone.read(SETTINGS), phone.read("fixed_performance")) == ("1", "false")
    wait_until(lambda: not list(phone.temporary.iterdir()), "the agents have cleaned up")


def test_two_phones_share_a_plan(phone: FakePhone, tmp_path: Path) -> None:
    with FakePhone(tmp_path / "other") as other:
        options = [DeviceOptions(at=f"adb:{p.serial}", python=sys.executable) for p in (phone, other)]
        table = profile_space(SPACE, setup_for(options, "onnxruntime"), QUICK, tmp_path / "t.jsonl")
        assert set(table.blocks) == set(blocks_of(SPACE))
        assert {row.device_index for row in table.rows if isinstance(row, BlockRow)} == {0, 1}
        assert (phone.read(SETTINGS), other.read(SETTINGS)) == ("1", "1")
        other.write("props/ro.product.model", "Pixel 9\n")
        with pytest.raises(DmaskError, match=r"must be identical: device of the first is '.*Pixel 8.*Pixel 9"):
            setup_for(options, "onnxruntime").head()


TINY = SearchSpace.model_validate(
    {
        "name": "tiny",
        "classes": 2,
        "input": {"resolutions": [16]},
        "stem": {"widths": [8]},
        "stages": [{"blocks": 1, "widths": [8], "stride": 2, "expansions": [2], "kernels": [3]}],
        "last": {"widths": [16]},
    }
)


def test_a_profile_by_litert_that_is_cut_off_goes_on(phone: FakePhone, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    options = DeviceOptions(at="adb", runner=str(litert_program(tmp_path / "programs")))
    setup = setup_on(AdbDevice(options, pauses=()), LiteRTRuntime())
    # The program runs once for a small model, once for a block that is tried out, once for each model that is loaded
    # and once to wake the phone; then come the samples.
    at_command(phone, "--graph", 12, phone.unplug)
    with pytest.raises(DeviceLostError, match=r"is not attached|is offline|broke"):
        profile_space(TINY, setup, QUICK, path)
    kept = path.read_bytes()
    rows = LatencyTable.read(path).rows
    assert len([row for row in rows if not isinstance(row, ConditionsRow)]) == 3
    phone.on_command = lambda command: None
    phone.plug_in()
    table = profile_space(TINY, setup, QUICK, path)
    assert path.read_bytes().startswith(kept)
    assert table.failures == {}
    assert set(table.blocks) == set(blocks_of(TINY))
    assert set(table.networks) == set(networks_of(TINY))
    assert set(table.num_rounds.values()) == {1, 2}
    assert table.head.soc == "Tensor G3"
    assert table.head.runtime_version.startswith("benchmark_model ")
    assert (phone.read(SETTINGS), phone.read("fixed_performance")) == ("1", "false")
    assert list(phone.temporary.iterdir()) == []
