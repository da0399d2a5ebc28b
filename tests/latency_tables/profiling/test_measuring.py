"""Several devices share a plan; what a device says of itself is kept; a lost one loses nothing."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.records.artifact import LatencyPrediction
from dmask_mobile.records.space import SearchSpace, load_space
from export.verification.latency_verdict import LatencyRules, MeasuredLatency, PredictedLatency, judge_latencies
from latency_tables.devices.device import (
    Conditions,
    Device,
    DeviceInfo,
    DeviceLostError,
    MeasuringError,
    Samples,
    Session,
)
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.options import DeviceOptions
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.measuring import ProfileSettings
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.profiling.profile import profile_space, remeasure
from latency_tables.profiling.setup import Setup, setup_for
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import BlockRow, ConditionsRow, FailureRow, NetworkRow, SentinelRow, SharesRow
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter
from tests.export.factory import exported
from tests.latency_tables.factory import AT, local_head

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
QUICK = ProfileSettings(rounds=2, network_rounds=2, seconds_per_block=0.001, seconds_per_network=0.001)


class ScriptedSession:
    """A phone whose latencies are known: one millisecond times ``slowness``."""

    def __init__(self, phone: ScriptedPhone) -> None:
        self.phone = phone

    def load(self, key: str, model: bytes) -> None:
        assert model

    def sample(self, key: str, seconds: float) -> Samples:
        self.phone.samples_left -= 1
        if self.phone.samples_left < 0:
            raise DeviceLostError("the phone is gone", "plug it in again")
        return Samples((self.phone.slowness,), (), self.phone.hot)

    def unload(self, key: str) -> None:
        return

    def conditions(self) -> Conditions:
        return Conditions(thermal_status=0, battery_percent=80.0, battery_celsius=28.7)

    def shares(self, key: str) -> dict[str, float]:
        return {"conv": 0.75, "add": 0.25}


class ScriptedPhone:
    """`Device`; lost after so many samples."""

    def __init__(self, slowness: float = 1.0, model: str = "Phone", hot: bool = False, samples: int = 10**6) -> None:
        self.slowness = slowness
        self.model = model
        self.hot = hot
        self.samples_left = samples

    def describe(self, runtime: Runtime) -> DeviceInfo:
        return DeviceInfo(self.model, "Android 14", 8, "1.0", soc="SM8650", clocks_mhz=(2000, 3000))

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
        yield ScriptedSession(self)


def profile(path: Path, *phones: Device) -> LatencyTable:
    return profile_space(SPACE, Setup(phones, OnnxRuntime()), QUICK, path)


def test_identical_devices_share_the_work(tmp_path: Path) -> None:
    table = profile(tmp_path / "t.jsonl", ScriptedPhone(), ScriptedPhone(2.0))
    counted = [row for row in table.rows if isinstance(row, BlockRow | NetworkRow)]
    assert len(counted) == 2 * (len(blocks_of(SPACE)) + len(networks_of(SPACE)))
    assert len({(row.subject, row.round) for row in counted}) == len(counted)
    by_device = [sum(row.device_index == device for row in counted) for device in (0, 1)]
    assert abs(by_device[0] - by_device[1]) <= len(counted) // 4
    assert {row.wall_ms for row in counted if row.device_index == 1} == {(2.0,)}


def test_a_slower_one_of_them_is_told_by_its_sentinels(tmp_path: Path) -> None:
    table = profile(tmp_path / "t.jsonl", ScriptedPhone(), ScriptedPhone(1.2))
    assert {round(summary.typical_ms, 6) for summary in table.blocks.values()} == {1.1}
    by_device = {row.device_index: round(float(drift), 6) for row, drift in zip(table.rows, table.drift, strict=True)
               if isinstance(row, BlockRow)}  # fmt: skip
    assert by_device == {0: round(1 / 1.1, 6), 1: round(1.2 / 1.1, 6)}


def test_two_real_sessions_share_the_work(tmp_path: Path) -> None:
    table = profile(tmp_path / "t.jsonl", LocalDevice(), LocalDevice())
    assert set(table.num_rounds.values()) == {2}
    assert {row.device_index for row in table.rows if isinstance(row, SentinelRow)} == {0, 1}


def test_different_devices_are_refused(tmp_path: Path) -> None:
    message = "must be identical: device of the first is 'Phone', of number 2 'Other'; make a table of each"
    with pytest.raises(DmaskError, match=message):
        profile(tmp_path / "t.jsonl", ScriptedPhone(), ScriptedPhone(model="Other"))
    assert not (tmp_path / "t.jsonl").exists()
    with pytest.raises(DmaskError, match="a device is named twice: local, local"):
        setup_for([DeviceOptions(), DeviceOptions()], "onnxruntime")


def test_what_a_phone_says_of_itself_is_kept(tmp_path: Path) -> None:
    table = profile(tmp_path / "t.jsonl", ScriptedPhone())
    assert (table.head.soc, table.head.clocks_mhz) == ("SM8650", (2000, 3000))
    conditions = [row for row in table.rows if isinstance(row, ConditionsRow)]
    sentinel_rounds = {row.round for row in table.rows if isinstance(row, SentinelRow)}
    assert len(conditions) == len(sentinel_rounds) >= 3  # before each round and at the end
    assert {(row.thermal_status, row.battery_percent, row.battery_celsius) for row in conditions} == {(0, 80.0, 28.7)}
    shares = [row for row in table.rows if isinstance(row, SharesRow)]
    assert [row.child for row in shares] == list(table.sentinels)[:1]
    assert {row.shares for row in shares} == {(("add", 0.25), ("conv", 0.75))}
    assert LatencyTable.read(tmp_path / "t.jsonl").rows == table.rows


class FailingPhone(ScriptedPhone):
    """Raises what ``fails`` gives for a model's key and how often it was asked for that one."""

    def __init__(self, fails: Callable[[str, str, int], Exception | None]) -> None:
        super().__init__()
        self.fails = fails
        self.asked: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
        phone = self

        class FailingSession(ScriptedSession):
            def load(self, key: str, model: bytes) -> None:
                phone.check("load", key)

            def sample(self, key: str, seconds: float) -> Samples:
                phone.check("sample", key)
                return super().sample(key, seconds)

        yield FailingSession(self)

    def check(self, what: str, key: str) -> None:
        self.asked[what, key] += 1
        error = self.fails(what, key, self.asked[what, key])
        if error is not None:
            raise error


def test_where_nothing_can_be_measured_it_ends_after_a_batch(tmp_path: Path) -> None:
    phone = FailingPhone(lambda *_: MeasuringError("refused"))
    with pytest.raises(DmaskError, match=r"nothing could be measured into .*: refused"):
        profile_space(
            load_space("demo"), Setup((phone,), OnnxRuntime()), ProfileSettings(batch_blocks=10), tmp_path / "t"
        )
    assert sum(phone.asked.values()) < 100  # of 188 blocks and networks


def test_what_is_no_fault_of_a_model_ends_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(DmaskError, match="adb does not work"):
        profile(path, FailingPhone(lambda what, key, count: DmaskError("adb does not work")))
    assert LatencyTable.read(path).failures == {}


def test_a_block_that_fails_later_is_not_tried_for_ever(tmp_path: Path) -> None:
    """Its first round stays, and the table says that it failed."""
    bad = blocks_of(SPACE)[0]

    def fails(what: str, key: str, count: int) -> Exception | None:
        return MeasuringError("flaky") if (what, key) == ("sample", repr(bad)) and count > 1 else None

    settings = QUICK.model_copy(update={"rounds": 3, "minutes": None})
    phone = FailingPhone(fails)
    table = profile_space(SPACE, Setup((phone,), OnnxRuntime()), settings, tmp_path / "t.jsonl")
    assert phone.asked["sample", repr(bad)] == 3
    assert table.num_rounds[bad] == 1
    assert table.failures == {bad: "MeasuringError: flaky"}
    assert len(LatencyModel(table).whole_networks()) == len(table.networks)


def test_a_sentinel_that_works_again_has_not_failed(tmp_path: Path) -> None:
    child, path = networks_of(SPACE)[0], tmp_path / "t.jsonl"
    row = {"round": 0, "at": AT, "wall_ms": (1.0,), "cpu_ms": ()}
    with TableWriter(path, local_head()) as writer:
        writer.add(NetworkRow(child=child, **row))
        writer.add(FailureRow(at=AT, child=child, reason="crashed"))
        assert set(LatencyTable.read(path).failures) == {child}
        writer.add(SentinelRow(child=child, elapsed_s=1.0, **row))
    assert LatencyTable.read(path).failures == {}


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_looked_at_after_every_model(signal_number: int, tmp_path: Path) -> None:
    def fails(what: str, key: str, count: int) -> None:
        if sum(phone.asked.values()) == 3:
            os.kill(os.getpid(), signal_number)

    phone = FailingPhone(fails)
    with pytest.raises(StoppedError, match="profiling stopped"):
        profile(tmp_path / "t.jsonl", phone)
    assert sum(phone.asked.values()) == 3


@pytest.mark.parametrize("samples", [0, 5, 40])
def test_a_lost_device_loses_nothing(samples: int, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(DeviceLostError, match="the phone is gone; plug it in again"):
        profile(path, ScriptedPhone(samples=samples))
    kept = path.read_bytes()
    rows = [row for row in LatencyTable.read(path).rows if not isinstance(row, ConditionsRow | SharesRow)]
    assert 0 <= samples - len(rows) <= 3  # the first sample of a round of sentinels only wakes the device
    assert LatencyTable.read(path).failures == {}
    table = profile(path, ScriptedPhone())
    assert path.read_bytes().startswith(kept)
    assert set(table.num_rounds.values()) == {2}
    assert set(table.blocks) == set(blocks_of(SPACE))


def test_one_of_two_devices_lost_keeps_what_the_other_measured(tmp_path: Path) -> None:
    with pytest.raises(DeviceLostError, match="the phone is gone"):
        profile(tmp_path / "t.jsonl", ScriptedPhone(), ScriptedPhone(samples=5))
    device_indices = [
        row.device_index for row in LatencyTable.read(tmp_path / "t.jsonl").rows if isinstance(row, BlockRow)
    ]
    assert device_indices.count(0) == -(-len(blocks_of(SPACE)) // 2)  # its whole share of the round


def test_a_hot_round_counts_only_where_there_is_no_cool_one(tmp_path: Path) -> None:
    (first, second), path = blocks_of(SPACE)[:2], tmp_path / "t.jsonl"
    with TableWriter(path, local_head()) as writer:
        for number, (block, ms, hot) in enumerate([(first, 1.0, False), (first, 3.0, True), (second, 5.0, True)]):
            writer.add(
                BlockRow(block=block[0], in_size=block[1], round=number, at=AT, wall_ms=(ms,), cpu_ms=(), hot=hot)
            )
    blocks = LatencyTable.read(path).blocks
    assert (blocks[first].typical_ms, blocks[second].typical_ms) == (1.0, 5.0)
    assert np.isclose(blocks[first].noise, 0.0)


def test_hot_sentinels_correct_nothing(tmp_path: Path) -> None:
    child, (block, in_size), path = networks_of(SPACE)[0], blocks_of(SPACE)[0], tmp_path / "t.jsonl"
    with TableWriter(path, local_head()) as writer:
        for number, (ms, hot) in enumerate([(1.0, False), (2.0, True), (1.0, False)]):
            common = {"round": number, "at": AT, "cpu_ms": ()}
            writer.add(SentinelRow(child=child, elapsed_s=number, wall_ms=(ms,), hot=hot, **common))
            writer.add(BlockRow(block=block, in_size=in_size, wall_ms=(5.0,), **common))
    table = LatencyTable.read(path)
    assert table.drift.tolist() == [1.0] * 6
    assert table.sentinels[child].typical_ms == 1.0


def test_a_phone_that_stays_hot_is_not_compared_with_its_table() -> None:
    setup = Setup((ScriptedPhone(hot=True),), OnnxRuntime())
    with pytest.raises(MeasuringError, match="stays too warm for its full speed; let it cool"):
        remeasure({"a": b"model"}, setup, 1, 0.001)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_verification_that_is_told_to_stop_stops(signal_number: int, tmp_path: Path) -> None:
    """It goes on without a latency that cannot be measured; a wish to stop is something else."""

    class Interrupting(ScriptedPhone):
        def describe(self, runtime: Runtime) -> DeviceInfo:
            return LocalDevice().describe(runtime)

        @contextmanager
        def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
            os.kill(os.getpid(), signal_number)
            yield ScriptedSession(self)

    class Probe:
        def measure(self, path: Path) -> MeasuredLatency:
            remeasure({"a": b"model"}, Setup((Interrupting(),), OnnxRuntime()), 2, 0.001)
            raise AssertionError("it went on")

    artifact = exported("onnx", tmp_path)
    prediction = LatencyPrediction(
        ms=1, spread_ms=0, table_digest="t", device="d", runtime="r", precision="fp32", threads=1
    )
    prediction = PredictedLatency("latency", "onnx", "fp32", prediction, {}, Probe())
    with pytest.raises(StoppedError, match=rf"measuring stopped by {signal.Signals(signal_number).name}"):
        list(judge_latencies(artifact, tmp_path / artifact.path, [prediction], {}, LatencyRules()))


class Refusing(ScriptedSession):
    def load(self, key: str, model: bytes) -> None:
        raise MeasuringError("no kernel")


class RefusingPhone(ScriptedPhone):
    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
        yield Refusing(self)


def test_a_table_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"nothing could be measured into .*: MeasuringError: no kernel; mend that"):
        profile(tmp_path / "t.jsonl", RefusingPhone())
    failed = [row.subject for row in LatencyTable.read(tmp_path / "t.jsonl").rows if isinstance(row, FailureRow)]
    assert len(failed) == len(set(failed))  # each one is tried once
