"""Profiling for real: ONNX Runtime, this machine, a space of a few blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.nets.named import named_child
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.space import SearchSpace, load_space
from latency_tables.conversion.converter import convert_subject
from latency_tables.devices import agent_session
from latency_tables.devices.device import MeasuringError
from latency_tables.devices.local import LocalDevice
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.prediction.predictor import MIN_BLOCKS
from latency_tables.profiling.plan import Planner, blocks_of, networks_of
from latency_tables.profiling.profile import profile_child, profile_space, stability
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup
from latency_tables.profiling.table_probe import TableProbe, check_drift, predicted_latency, probe_of
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import BlockRow, FailureRow, NetworkRow, SentinelRow
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter
from tests.latency_tables import factory
from tests.latency_tables.factory import write_table
from tests.processes import DMASK, HANG_SECONDS, dmask, wait_until

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
QUICK = ProfileSettings(
    rounds=2, network_rounds=2, seconds_per_block=0.001, seconds_per_network=0.001, metric_networks=0
)
BLOCKS, NETWORKS = blocks_of(SPACE), networks_of(SPACE)


def setup() -> Setup:
    return Setup((LocalDevice(),), OnnxRuntime())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return profile_space(SPACE, setup(), QUICK, tmp_path_factory.mktemp("t") / "t.jsonl")


def test_blocks_are_those_of_all_children_once() -> None:
    children = [SPACE.child(SPACE.smallest()), SPACE.child(SPACE.largest())]
    wanted = {located for child in children for located in child.located_blocks() if located[0].kind != "skip"}
    assert wanted <= set(BLOCKS)
    assert len(BLOCKS) == len(set(BLOCKS))


def test_networks_span_every_resolution() -> None:
    space = load_space("mobilenet_small")
    found = networks_of(space)
    for resolution in space.input.resolutions:
        here = [child for child in found if child.resolution == resolution]
        assert len(here) >= 4
        assert {space.child(c).blocks for c in (space.smallest(), space.largest())} <= {c.blocks for c in here}


def test_table_holds_all_rounds_with_raw_samples(table: LatencyTable) -> None:
    assert set(table.blocks) == set(BLOCKS)
    assert set(table.networks) == set(NETWORKS)
    assert sum(isinstance(row, NetworkRow) for row in table.rows) == 2 * len(NETWORKS)
    assert sum(isinstance(row, SentinelRow) for row in table.rows) >= 6
    measured = [row for row in table.rows if not isinstance(row, FailureRow)]
    assert all(len(row.wall_ms) == len(row.cpu_ms) >= 5 and min(row.wall_ms) > 0 for row in measured)
    assert table.head.runtime == "onnxruntime"
    assert LatencyTable.read(Path(table.source)).rows == table.rows


def test_a_finished_table_is_not_measured_again(table: LatencyTable) -> None:
    path = Path(table.source)
    before = path.read_bytes()
    profile_space(SPACE, setup(), QUICK, path)
    assert path.read_bytes() == before


def test_estimates_come_with_a_spread(table: LatencyTable) -> None:
    estimate = Latency(LatencyModel(table)).estimate(SPACE.child(SPACE.largest()))
    assert estimate.value > 0
    assert estimate.spread > 0
    assert estimate.unit == "ms"
    assert estimate.num_predicted == 0


def test_a_probe_predicts_and_measures(table: LatencyTable, tmp_path: Path) -> None:
    child = SPACE.child(SPACE.largest())
    model = tmp_path / "model.onnx"
    model.write_bytes(convert_subject(child, OnnxRuntime(), "fp32"))
    probe = TableProbe(table)
    measured = probe.measure(model)
    assert measured.ms > 0
    assert measured.noise >= 0
    assert measured.drift > -1
    prediction = predicted_latency(table, "latency", child, {"latency": 2.0}, probe_of(table))
    assert (prediction.model_format, prediction.precision, prediction.budgets) == ("onnx", "fp32", {"latency": 2.0})
    assert prediction.predicted.ms == Latency(LatencyModel(table)).estimate(child).value
    assert isinstance(prediction.probe, TableProbe)
    elsewhere = LatencyTable(table.head.model_copy(update={"device": "phone"}), table.rows, table.source)
    reason = probe_of(elsewhere)
    assert isinstance(reason, str)
    assert reason.startswith("the device cannot be reached: ")
    assert "device of the table is 'phone'" in reason


def test_a_device_that_is_not_what_it_was_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is of a device far slower than any machine that runs this."""
    monkeypatch.setattr(factory, "SCALE", 900.0)
    table = LatencyTable.read(write_table(tmp_path / "t.jsonl", SPACE))
    with pytest.raises(DmaskError, match=r"the device has drifted by [+-]\d+% since '.*' was measured .*--allow-drift"):
        check_drift(table)


def test_only_what_a_child_lacks_is_measured(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.jsonl", SPACE)
    child = named_child("fbnetv2_f1")
    before = path.read_bytes()
    with pytest.raises(DmaskError, match=r"no row for .*, nor enough of its kind to predict it; .*--missing"):
        Latency(LatencyModel(LatencyTable.read(path))).estimate(child)
    table = profile_child(child, setup(), QUICK, path)
    wanted = {located for located in child.located_blocks() if located[0].kind != "skip"}
    assert set(table.blocks) - set(LatencyTable.read(path).blocks) == set()
    assert wanted <= set(table.blocks)
    assert path.read_bytes().startswith(before)
    assert Latency(LatencyModel(table)).estimate(child).num_predicted == 0
    grown = path.read_bytes()
    profile_child(child, setup(), QUICK, path)
    assert path.read_bytes() == grown


class FragileRuntime(OnnxRuntime):
    """Converts the blocks of one stride into something else; the agent does the real thing with the rest."""

    def __init__(self, model: bytes) -> None:
        self.model = model

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        strides = [m.stride[0] for m in module.modules() if isinstance(m, nn.Conv2d)]
        if len(strides) < 10 and strides and max(strides) == 2:
            return self.model
        return super().convert(module, input_shape, precision)


def test_a_model_that_the_runtime_refuses_loses_its_row_alone(tmp_path: Path) -> None:
    table = profile_space(SPACE, Setup((LocalDevice(),), FragileRuntime(b"no model")), QUICK, tmp_path / "t.jsonl")
    assert table.failures
    assert all("INVALID_PROTOBUF" in reason or "InvalidProtobuf" in reason for reason in table.failures.values())
    assert set(table.blocks) | {s for s in table.failures if isinstance(s, tuple)} == set(BLOCKS)
    again = profile_space(SPACE, setup(), QUICK, tmp_path / "t.jsonl")
    assert again.failures == table.failures  # a failure is not tried again by itself


def crashing_agent(then: str) -> bytes:
    """The real agent, but for models that are not ONNX files: those end it, or silence it."""
    marker = b"    import onnxruntime\n"
    assert agent_session.SOURCE.count(marker) == 1
    bad = f'    if open(path, "rb").read() == b"bad":\n        {then}\n'
    return agent_session.SOURCE.replace(marker, marker + bad.encode())


@pytest.mark.parametrize(
    ("then", "patience", "reason"),
    [
        ("os.abort()", HANG_SECONDS, r"the runtime crashed \(SIGABRT\)"),
        ("time.sleep(600)", 3.0, r"no answer for 3 s: it hangs"),
    ],
)
def test_a_crash_or_a_hang_costs_one_model(
    then: str, patience: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_session, "SOURCE", crashing_agent(then))
    session = agent_session.AgentSession(agent_session.agent_command([sys.executable], OnnxRuntime(), 1, "cpu", ()))
    good = convert_subject(BLOCKS[0], OnnxRuntime(), "fp32")
    try:
        session.load("good", good)
        assert len(session.sample("good", 0.001).wall_ms) >= 5
        session.patience = patience
        with pytest.raises(MeasuringError, match=reason):
            session.load("bad", b"bad")
        session.patience = HANG_SECONDS
        assert len(session.sample("good", 0.001).wall_ms) >= 5  # loaded again by itself
        session.unload("good")
        session.unload("bad")
    finally:
        session.close()


@pytest.mark.slow
def test_kill_minus_nine_loses_at_most_the_line_under_way(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    golden = Path(__file__).parents[2] / "golden" / "space_v1.yaml"
    command = [DMASK, "profile", str(golden), "-o", str(path), "--rounds", "50"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 30, "30 lines of the table")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"\n".join(whole_lines) + b'\n{"round": 3, "at"')  # the worst moment: in the middle of a line
    table = profile_space(SPACE, setup(), QUICK, path)
    assert path.read_bytes().split(b"\n")[: len(whole_lines)] == whole_lines
    assert set(BLOCKS) == set(table.blocks)


@pytest.mark.slow
def test_ctrl_c_in_the_terminal_blames_no_block(tmp_path: Path) -> None:
    """A terminal signals the whole process group; the process that runs the models must not take part in that."""
    path = tmp_path / "t.jsonl"
    golden = Path(__file__).parents[2] / "golden" / "space_v1.yaml"
    command = [DMASK, "profile", str(golden), "-o", str(path), "--rounds", "50"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 30, "30 lines of the table")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert b"profiling stopped by SIGINT" in errors
    assert LatencyTable.read(path).failures == {}


def test_an_interrupted_batch_gets_its_missing_rounds(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    first_round = [row for row in table.rows if not isinstance(row, BlockRow | NetworkRow) or row.round == 0]
    with TableWriter(path, table.head) as writer:
        for row in first_round:
            writer.add(row)
    again = profile_space(SPACE, setup(), QUICK, path)
    assert set(again.num_rounds.values()) == {2}
    assert len(again.num_rounds) == len(BLOCKS) + len(NETWORKS)


def test_a_signal_stops_in_order_and_a_second_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    calls = 0

    class Interrupted(OnnxRuntime):
        def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
            nonlocal calls
            calls += 1
            if calls == 20:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().convert(module, input_shape, precision)

    with pytest.raises(StoppedError, match="profiling stopped by SIGTERM"):
        profile_space(SPACE, Setup((LocalDevice(),), Interrupted()), QUICK, path)
    kept = path.read_bytes()
    table = profile_space(SPACE, setup(), QUICK, path)
    assert path.read_bytes().startswith(kept)
    assert set(table.blocks) == set(BLOCKS)


@pytest.mark.slow
def test_a_target_error_stops_early_and_the_rest_is_predicted(tmp_path: Path) -> None:
    space = load_space("mobilenet_small")
    limits = {"minutes": None, "target_error": 0.9, "batch_blocks": 100, "network_rounds": 1, "rounds": 1}
    table = profile_space(space, setup(), QUICK.model_copy(update=limits), tmp_path / "t.jsonl")
    assert 100 <= len(table.blocks) < 300
    assert len(table.networks) == len(networks_of(space))
    costs = Latency(LatencyModel(table)).on(space)
    assert costs.cost(space.largest()) > costs.cost(space.smallest())


def test_planner_begins_with_what_is_rare_and_goes_where_it_is_uncertain(tmp_path: Path) -> None:
    space = load_space("mobilenet_small")
    planner = Planner(space)
    rare = {located for located in planner.all if located[0].kind != "inverted_residual"}
    empty = LatencyTable.read(write_table(tmp_path / "e.jsonl", space, every=10**6))
    bare = LatencyModel(LatencyTable(empty.head, (), "bare"))
    first = planner.next_batch(bare, 100)
    assert len(first) == len(set(first)) == len(rare) + 2 * MIN_BLOCKS > 100  # else nothing could be predicted
    assert rare <= set(first)
    table = LatencyTable.read(write_table(tmp_path / "t.jsonl", space, every=10))
    model = LatencyModel(table)
    batch = planner.next_batch(model, 40)
    assert not set(batch) & set(table.blocks)
    spreads, others = model.spread_ms(batch[20:]), model.spread_ms(planner.missing(table)[:300])
    assert sorted(spreads)[len(spreads) // 2] > sorted(others)[len(others) // 2]
    full = LatencyTable.read(write_table(tmp_path / "full.jsonl", space))
    assert planner.next_batch(LatencyModel(full), 40) == []


def test_a_noisy_machine_is_reported(table: LatencyTable) -> None:
    child, rows = NETWORKS[0], []
    for round_, ms in enumerate((1.0, 1.5)):
        rows.append(NetworkRow(child=child, round=round_, at="now", wall_ms=(ms,), cpu_ms=()))
    noisy = LatencyTable(table.head, tuple(rows), "noisy")
    assert stability(noisy) == "unstable: spread 20%; close other programs or use --rounds 8"
    assert stability(LatencyTable(table.head, tuple(rows[:1]), "quiet")) is None


def test_a_busy_machine_is_reported(table: LatencyTable) -> None:
    rows = [
        NetworkRow(child=NETWORKS[0], round=round_, at="now", wall_ms=(1.0,), cpu_ms=(), slowed=round_ < 2)
        for round_ in range(5)
    ]
    busy = LatencyTable(table.head, tuple(rows), "busy")
    assert busy.disturbed_share == 0.4
    assert stability(busy) == (
        "busy: other programs or virtual machines disturbed 40% of the rounds; close them, or give more --minutes"
    )
    assert stability(LatencyTable(table.head, tuple(rows[2:]), "quiet")) is None


def test_measuring_leaves_this_process_on_all_its_cores() -> None:
    before = os.sched_getaffinity(0)
    with LocalDevice().open(OnnxRuntime(), 1, "cpu") as session:
        session.load("a", convert_subject(NETWORKS[0], OnnxRuntime(), "fp32"))
        session.sample("a", 0.001)
    assert os.sched_getaffinity(0) == before


@pytest.mark.slow
def test_options_that_say_nothing_about_a_childs_missing_blocks_are_refused(tmp_path: Path) -> None:
    arguments = ("--missing", tmp_path / "child.json", "--table", tmp_path / "t.jsonl", "--minutes", 3)
    done = dmask("profile", *arguments)
    assert done.returncode == 2
    assert "--missing measures all blocks that the child needs; leave out" in done.stderr
