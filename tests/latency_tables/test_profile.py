"""Profiling for real: ONNX Runtime, this machine, a space of a few blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmask_mobile.costs.latency import Latency
from dmask_mobile.records.space import SearchSpace
from latency_tables.devices.local import LocalDevice
from latency_tables.plan import plan_space, sentinels
from latency_tables.profile import ProfileSettings, Setup, profile_plan, remeasure
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table import LatencyTable

SPACE = SearchSpace.read(Path(__file__).parents[1] / "golden" / "space_v1.yaml")
QUICK = ProfileSettings(rounds=2, seconds_per_block=0.001, seconds_per_network=0.001)


def setup() -> Setup:
    return Setup(LocalDevice(), OnnxRuntime(), 1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return profile_plan(plan_space(SPACE, 4), setup(), QUICK, tmp_path_factory.mktemp("t") / "t.jsonl")


def test_plan_has_every_block_of_every_child_once() -> None:
    plan = plan_space(SPACE, 4)
    children = [SPACE.child(SPACE.smallest()), SPACE.child(SPACE.largest())]
    wanted = {located for child in children for located in child.located_blocks() if located[0].kind != "skip"}
    assert wanted <= set(plan.blocks)
    assert len(plan.blocks) == len(set(plan.blocks))
    assert plan.networks[:2] == tuple(
        SPACE.child(c, f"golden-{i}") for i, c in enumerate((SPACE.smallest(), SPACE.largest()))
    )


def test_table_holds_all_rounds_with_raw_samples(table: LatencyTable) -> None:
    plan = plan_space(SPACE, 4)
    assert set(table.blocks) == set(plan.blocks)
    assert set(table.networks) == set(plan.networks)
    assert len(table.rows) == 2 * (len(plan.blocks) + len(plan.networks))
    assert all(len(row.wall_ms) == len(row.cpu_ms) >= 5 and min(row.wall_ms) > 0 for row in table.rows)
    assert table.head.runtime == "onnxruntime"


def test_a_finished_table_is_not_measured_again(table: LatencyTable) -> None:
    path = Path(table.source)
    before = path.read_bytes()
    profile_plan(plan_space(SPACE, 4), setup(), QUICK, path)
    assert path.read_bytes() == before


def test_estimates_come_with_a_spread(table: LatencyTable) -> None:
    estimate = Latency(table).estimate(SPACE.child(SPACE.largest()))
    assert estimate.value > 0
    assert estimate.unit == "ms"
    assert estimate.num_missing == estimate.num_predicted == 0


def test_remeasuring_gives_noise_and_drift(table: LatencyTable) -> None:
    networks = {child: table.networks[child] for child in sentinels(tuple(table.networks))}
    model = setup().convert(SPACE.child(SPACE.largest()))
    found = remeasure(model, networks, setup(), rounds=3)
    assert found.summary.typical_ms > 0
    assert found.summary.noise >= 0
    assert found.drift > -1


def test_kill_minus_nine_loses_at_most_the_line_under_way(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    golden = Path(__file__).parents[1] / "golden" / "space_v1.yaml"
    command = [str(Path(sys.executable).parent / "dmask"), "profile", str(golden), "-o", str(path), "--rounds", "50"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not path.exists() or path.read_bytes().count(b"\n") < 30):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"\n".join(whole_lines) + b'\n{"round": 3, "at"')  # the worst moment: in the middle of a line
    settings = QUICK.model_copy(update={"rounds": 2})
    table = profile_plan(plan_space(SPACE), setup(), settings, path)
    assert path.read_bytes().split(b"\n")[: len(whole_lines)] == whole_lines
    assert set(plan_space(SPACE).blocks) == set(table.blocks)


def test_measuring_leaves_the_affinity_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    with LocalDevice().load(OnnxRuntime(), setup().convert(SPACE.child(SPACE.smallest())), 1) as loaded:
        loaded.sample(0.001)
    assert os.sched_getaffinity(0) == before
