"""Several devices share a plan; what a device says of itself is kept; a lost one loses nothing."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.records.artifact import LatencyPrediction, Precision
from dmask_mobile.records.space import SearchSpace, load_space
from export.verification.latency_verdict import LatencyRules, MeasuredLatency, PredictedLatency, judge_latencies
from latency_tables.conversion.converter import Converter
from latency_tables.conversion.workers import Workers
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
from latency_tables.profiling import measured_device, measuring
from latency_tables.profiling.measured_device import MAX_FAILURES
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.profiling.profile import profile_space, remeasure, what_is_missing
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup, setup_for
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import BlockRow, ConditionsRow, FailureRow, NetworkRow, SentinelRow, SharesRow, Subject
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter
from tests.export.factory import exported
from tests.latency_tables.factory import AT, local_head

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
QUICK = ProfileSettings(
    rounds=2, network_rounds=2, seconds_per_block=0.001, seconds_per_network=0.001, metric_networks=0
)


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
    message = "must be identical: device of the first is 'Phone', but of number 2 it is 'Other'; make a separate"
    with pytest.raises(DmaskError, match=message):
        profile(tmp_path / "t.jsonl", ScriptedPhone(), ScriptedPhone(model="Other"))
    assert not (tmp_path / "t.jsonl").exists()
    with pytest.raises(DmaskError, match="a device is given twice: local, local"):
        setup_for([DeviceOptions(), DeviceOptions()], "onnxruntime")


def test_an_unknown_thermal_state_is_said_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedSession, "conditions", lambda _: Conditions(None, None, None))
    notes: list[str] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        notes.extend([note] if "measure round" in note else [])

    table = profile_space(
        SPACE, Setup((ScriptedPhone(),), OnnxRuntime()), QUICK, tmp_path / "t.jsonl", progress=progress
    )
    assert notes
    assert {note.partition(", ")[2] for note in notes} == {"the phone's thermal state is unknown"}
    assert {row.thermal_status for row in table.rows if isinstance(row, ConditionsRow)} == {None}


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


def test_where_nothing_can_be_measured_it_ends_within_a_few_models(tmp_path: Path) -> None:
    """No row blames a model, so that the same command measures everything once the cause is mended."""
    path, phone = tmp_path / "t.jsonl", FailingPhone(lambda *_: MeasuringError("refused"))
    with pytest.raises(
        DmaskError, match=r"nothing can be measured on the device: .*: refused; correct that, then start"
    ):
        profile_space(SPACE, Setup((phone,), OnnxRuntime()), ProfileSettings(), path)
    assert phone.asked.total() == MAX_FAILURES < len(blocks_of(SPACE))
    assert LatencyTable.read(path).rows == ()
    table = profile(path, ScriptedPhone())
    assert set(table.blocks) == set(blocks_of(SPACE))


def test_kinds_that_fail_do_not_end_a_profile_whose_other_kinds_work(tmp_path: Path) -> None:
    bad = {repr(block) for block in blocks_of(SPACE) if block[0].kind == "conv"}
    table = profile(tmp_path / "t.jsonl", FailingPhone(lambda what, key, _: refused_if(key in bad)))
    assert {repr(subject) for subject in table.failures} == bad
    assert {repr(block) for block in table.blocks} == set(map(repr, blocks_of(SPACE))) - bad


def refused_if(failing: bool) -> Exception | None:
    return MeasuringError("refused") if failing else None


def test_a_device_on_which_nothing_works_any_more_ends_the_profile_and_blames_no_model(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    phone = FailingPhone(lambda *_: refused_if(phone.asked.total() > 60))
    with pytest.raises(DmaskError, match=r"nothing can be measured on the device: .*: refused"):
        profile(path, phone)
    table = LatencyTable.read(path)
    assert table.blocks
    assert table.failures == {}
    assert set(profile(path, ScriptedPhone()).num_rounds.values()) == {2}


def failed_before(path: Path, reason: str) -> None:
    """A table in which a block failed for ``reason``."""
    (block, in_size), *_ = blocks_of(SPACE)
    head = Setup((ScriptedPhone(),), OnnxRuntime()).head()
    with TableWriter(path, head) as writer:
        writer.add(FailureRow(at=AT, block=block, in_size=in_size, reason=reason))
        writer.add(FailureRow(at=AT, child=networks_of(SPACE)[-1], reason=reason))


@pytest.mark.parametrize(
    "reason",
    [
        "MeasuringError: OSError: [Errno 28] No space left on device: '/tmp/dmask-x/3'",
        "MeasuringError: the runtime crashed (SIGKILL); the session continues with the next model",
        "MeasuringError: OSError: [Errno 24] Too many open files",
        "MeasuringError: OSError: [Errno 27] File too large",
        "MeasuringError: RuntimeError: std::bad_alloc",
        "MemoryError: ",
    ],
)
def test_what_failed_for_want_of_space_or_memory_is_tried_again_by_itself(reason: str, tmp_path: Path) -> None:
    """As tables have it that were made when such a cause was still held against the model."""
    failed_before(tmp_path / "t.jsonl", reason)
    table = profile(tmp_path / "t.jsonl", ScriptedPhone())
    assert table.failures == {}
    assert set(table.blocks) == set(blocks_of(SPACE))
    assert set(table.networks) == set(networks_of(SPACE))


def test_a_failure_is_tried_again_when_that_is_wished(tmp_path: Path) -> None:
    path, first = tmp_path / "t.jsonl", blocks_of(SPACE)[0]
    failed_before(path, "MeasuringError: no kernel")
    assert set(profile(path, ScriptedPhone()).failures) == {first, networks_of(SPACE)[-1]}
    retrying = QUICK.model_copy(update={"retry_failures": True})
    phone = FailingPhone(lambda what, key, _: refused_if(key == repr(first)))
    table = profile_space(SPACE, Setup((phone,), OnnxRuntime()), retrying, path)
    assert table.failures == {first: "MeasuringError: refused"}
    assert phone.asked["load", repr(first)] <= 2  # tried out, then loaded: not for ever
    table = profile_space(SPACE, Setup((ScriptedPhone(),), OnnxRuntime()), retrying, path)
    assert table.failures == {}
    assert set(table.num_rounds.values()) == {2}


class Clock:
    """Stands for the module `time`: it goes on when something takes time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class SlowConverter(Converter):
    """A conversion takes so many seconds of the clock, on one process."""

    def __init__(self, clock: Clock, seconds: float, folder: Path) -> None:
        super().__init__(LiteRTRuntime(), "fp32", folder, Workers("litert", "fp32", folder))
        self.clock = clock
        self.seconds_each = seconds

    def start(self, count: int) -> None:
        return

    def _convert(
        self, subjects: Sequence[Subject], may_start: Callable[[Subject], bool] = lambda subject: True
    ) -> Iterator[Subject]:
        for subject in itertools.takewhile(may_start, subjects):
            self.clock.now += self.seconds_each
            self._seconds[type(subject)].append(self.seconds_each)
            self._keep(self._path(subject), b"model")
            yield subject


class SlowPhone(ScriptedPhone):
    """A sample takes so many seconds of the clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
        phone = self

        class SlowSession(ScriptedSession):
            def sample(self, key: str, seconds: float) -> Samples:
                phone.clock.now += phone.seconds
                return super().sample(key, seconds)

        yield SlowSession(self)


def slow_world(monkeypatch: pytest.MonkeyPatch, conversion_s: float, folder: Path) -> Clock:
    """A clock by which conversions take so long."""
    clock = Clock()

    @contextmanager
    def converter_for(runtime: Runtime, precision: Precision) -> Iterator[Converter]:
        yield SlowConverter(clock, conversion_s, folder)

    monkeypatch.setattr(measuring, "converter_for", converter_for)
    for module in (measuring, measured_device):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("minutes", "conversion_s", "sample_s"),
    [(1.2, 1.5, 0.05), (6.0, 1.5, 0.05), (1.2, 6.0, 0.05), (6.0, 0.0, 1.5), (1.0, 0.0, 0.05), (2.0, 8.0, 2.0)],
)
def test_minutes_are_a_limit_whatever_takes_the_time(
    minutes: float, conversion_s: float, sample_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT's conversions, or a phone's samples: 8.5 minutes were taken where 1.2 were allowed."""
    clock, told = slow_world(monkeypatch, conversion_s, tmp_path), []
    settings = ProfileSettings(minutes=minutes)
    table = profile_space(
        load_space("demo"),
        Setup((SlowPhone(clock, sample_s),), OnnxRuntime()),
        settings,
        tmp_path / "t.jsonl",
        lambda stage, done, total, note="": told.append((stage, done, total)),
    )
    took = clock.now - 1000.0
    assert took <= 1.2 * 60 * minutes + 3 * conversion_s
    everything = len(blocks_of(load_space("demo")))
    assert took >= 0.5 * 60 * minutes or len(table.blocks) == everything
    assert {stage for stage, *_ in told} == {"profile"}
    assert {total for *_, total in told} == {60 * minutes}
    seconds = [done for _, done, _ in told]
    assert seconds == sorted(seconds)


def test_a_second_run_goes_on_with_more_minutes_and_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, path, space = slow_world(monkeypatch, 0.0, tmp_path), tmp_path / "t.jsonl", load_space("demo")
    setup = Setup((SlowPhone(clock, 1.0),), OnnxRuntime())
    table = profile_space(space, setup, ProfileSettings(minutes=0.5), path)
    assert table.blocks
    incomplete = what_is_missing(table, space)
    assert incomplete is not None
    assert re.search(
        r"incomplete: \d+ of 164 blocks were not measured and cannot be .*; .* with more --minutes", incomplete
    )
    again = profile_space(space, setup, ProfileSettings(minutes=0.5), path)
    assert again.rows == table.rows  # the time of the table is used up
    table = profile_space(space, setup, ProfileSettings(minutes=60), path)
    assert what_is_missing(table, space) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"minutes": 0.0},
        {"minutes": float("nan")},
        {"minutes": float("inf")},
        {"minutes": 1e9},
        {"rounds": 10**9},
        {"rounds": 0},
        {"network_rounds": 10**9},
        {"target_error": float("nan")},
        {"seconds_per_block": 1e9},
        {"batch_blocks": 0},
    ],
    ids=str,
)
def test_settings_without_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        ProfileSettings(**settings)  # type: ignore[arg-type]


def test_what_is_no_fault_of_a_model_ends_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(DmaskError, match="adb does not work"):
        profile(path, FailingPhone(lambda what, key, count: DmaskError("adb does not work")))
    assert LatencyTable.read(path).failures == {}


def test_a_block_that_fails_later_is_not_tried_for_ever(tmp_path: Path) -> None:
    """Its first round stays, and the table says that it failed."""
    bad = blocks_of(SPACE)[0]

    def fails(what: str, key: str, count: int) -> Exception | None:
        return MeasuringError("flaky") if (what, key) == ("sample", repr(bad)) and count > 2 else None

    settings = QUICK.model_copy(update={"rounds": 3, "minutes": None})
    phone = FailingPhone(fails)
    table = profile_space(SPACE, Setup((phone,), OnnxRuntime()), settings, tmp_path / "t.jsonl")
    assert phone.asked["sample", repr(bad)] == 1 + 3  # it was tried out as well
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
    assert 0 <= samples - len(rows) <= 6  # the first sample of a round of sentinels only wakes the device
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
