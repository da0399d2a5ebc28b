"""ONNX Runtime's ARM kernels, real in all but speed: an aarch64 Python under emulation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmask_mobile.costs.latency import Latency
from dmask_mobile.nets.named import named_child
from dmask_mobile.records.space import SearchSpace
from latency_tables.conversion.converter import convert_subject
from latency_tables.devices.agent_session import AgentSession
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.options import DeviceOptions
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import Subject
from latency_tables.table.table import LatencyTable
from tests.arm64_root import arm64_python
from tests.processes import dmask

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[2] / "golden" / "space_v1.yaml"
SPACE = SearchSpace.read(GOLDEN)
RUNTIME = OnnxRuntime()
SUBJECTS = {
    "stem": blocks_of(SPACE)[0],
    "block": next(located for located in blocks_of(SPACE) if located[0].kind == "inverted_residual"),
    "small network": networks_of(SPACE)[-1],
    "mobile network": named_child("fbnetv2_f1"),  # squeeze-excite and h-swish: fused otherwise than on x86
}


@pytest.fixture(scope="module")
def emulated() -> str:
    return shlex.join(arm64_python())


@pytest.fixture(scope="module")
def sessions(emulated: str) -> Iterator[tuple[AgentSession, AgentSession]]:
    """On this machine, and on the emulated one."""
    there = LocalDevice(DeviceOptions(python=emulated))
    with LocalDevice().open(RUNTIME, 1, "cpu") as here, there.open(RUNTIME, 1, "cpu") as session:
        yield here, session


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_outputs_are_those_of_this_machine(subject: Subject, sessions: tuple[AgentSession, AgentSession]) -> None:
    """An untrained network's outputs are small: within 1e-5 of the largest."""
    model = convert_subject(subject, RUNTIME, "fp32")
    outputs = []
    for session in sessions:
        session.load("subject", model)
        outputs.append(np.array(session.output("subject")))
    here, there = outputs
    assert np.ptp(here) > 0
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-5 * np.abs(here).max())


@pytest.fixture(scope="module")
def table(emulated: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm64") / "emulated.jsonl"
    done = dmask("profile", GOLDEN, "-o", path, "--python", emulated, "--emulated", "--rounds", 1)
    assert done.returncode == 0, done.stderr
    return path


def test_a_table_of_an_emulator_says_so(table: Path) -> None:
    read = LatencyTable.read(table)
    head = read.head
    assert (head.device, head.system) == ("Cortex-A76 (qemu) (aarch64)", "Linux")
    assert head.runtime_version == version("onnxruntime")
    assert head.emulated
    assert set(read.blocks) == set(blocks_of(SPACE))
    assert set(read.networks) == set(networks_of(SPACE))
    assert read.failures == {}
    assert "measured on an emulator" in dmask("table", "show", table).stdout


def test_a_search_takes_it_only_when_told_to(table: Path, tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16), (ord(name), 20 * number, 99)).save(tmp_path / "data" / name / f"{number}.png")
    latency = Latency(LatencyModel(LatencyTable.read(table))).on(SPACE)
    middle = (latency.cost(SPACE.smallest()) + latency.cost(SPACE.largest())) / 2
    budget = ("--budget", f"latency={middle}ms", "--table", table, "--allow-drift")
    search = ("search", GOLDEN, "--data", tmp_path / "data", "-o", tmp_path / "run", *budget, "--epochs", 1)
    refused = dmask(*search)
    assert refused.returncode == 2
    assert "was measured on an emulator: its times are meaningless; profile the device itself, or" in refused.stderr
    assert not (tmp_path / "run" / "child.json").exists()
    done = dmask(*search, "--emulated")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "child.json").exists()
