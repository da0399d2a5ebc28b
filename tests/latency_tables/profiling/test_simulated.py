"""Tables of simulated devices: latencies by a formula, speeds that change, other programs that interrupt.

What a table predicts is compared with the formula. So its error is known, which no measurement can say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from latency_tables.devices.device import DeviceInfo, Samples
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling import evaluate as evaluate_module
from latency_tables.profiling import table_probe
from latency_tables.profiling.evaluate import evaluate, unseen_children
from latency_tables.profiling.measured_device import key_of
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup
from latency_tables.profiling.table_probe import recheck
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import block_ms, network_ms

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
SETTINGS = ProfileSettings(minutes=None, rounds=3, network_rounds=4)
NOISE = 0.01
BLOCKS = {key_of(block): block_ms(*block) for block in blocks_of(SPACE)}
HALF = 120  # samples, about, of a profile
Speed = Callable[[int], float]


def steady(taken: int) -> float:
    return 1.0


def slower_from_the_middle(taken: int) -> float:
    return 1.15 if taken > HALF else 1.0


class UnconvertedRuntime(OnnxRuntime):
    """Its models are never run."""

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        return b"model"


class SimulatedDevice:
    """`Device` and `Session` in one.

    Args:
        of_networks: how slow networks are after so many samples.
        of_blocks: how slow blocks are.
        interrupted: the share of runs that wait twice as long as they compute for other programs.
        noise: of single runs.
        neighbour: whether another virtual machine works on the same core after so many samples. Blocks then take 1.5
            times as long, networks 1.3 times, and the agent says so.
    """

    def __init__(
        self,
        of_networks: Speed = steady,
        of_blocks: Speed = steady,
        interrupted: float = 0.0,
        noise: float = NOISE,
        neighbour: Callable[[int], bool] = lambda taken: False,
    ) -> None:
        self.of_networks, self.of_blocks = of_networks, of_blocks
        self.interrupted, self.noise, self.neighbour = interrupted, noise, neighbour
        self.random = np.random.default_rng(0)
        self.taken = 0
        self.networks: dict[str, float] = {}

    def knows(self, children: Sequence[ChildSpec]) -> SimulatedDevice:
        self.networks |= {key_of(child): network_ms(child) for child in children}
        return self

    def describe(self, runtime: Runtime) -> DeviceInfo:
        return DeviceInfo("Simulated", "none", 1, "1.0")

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[SimulatedDevice]:
        yield self

    def load(self, key: str, model: bytes) -> None:
        return

    def unload(self, key: str) -> None:
        return

    def conditions(self) -> None:
        return

    def sample(self, key: str, seconds: float) -> Samples:
        self.taken += 1
        block = BLOCKS.get(key)
        ms = self.of_networks(self.taken) * self.networks[key] if block is None else self.of_blocks(self.taken) * block
        slowed = self.neighbour(self.taken)
        ms *= 1.0 if not slowed else 1.3 if block is None else 1.5
        cpu = ms * (1 + self.noise * self.random.standard_normal(15))
        wall = np.where(self.random.random(15) < self.interrupted, 3.0, 1.0) * cpu
        return Samples(tuple(wall.tolist()), tuple(cpu.tolist()), slowed=slowed)


def setup(device: SimulatedDevice) -> Setup:
    return Setup((device.knows(networks_of(SPACE)),), UnconvertedRuntime())


def profiled(device: SimulatedDevice, path: Path) -> LatencyTable:
    return profile_space(SPACE, setup(device), SETTINGS, path)


def error_of(table: LatencyTable, slowness: float | None = None) -> float:
    """The mean error on fresh children of the formula; by default on a device as slow as the table says it is."""
    latency, generator = Latency(LatencyModel(table)), random.Random(7)
    children = [SPACE.child(SPACE.sample(generator)) for _ in range(60)]
    if slowness is None:
        slowness = float(np.median([s.typical_ms / network_ms(child) for child, s in table.sentinels.items()]))
    ratios = [latency.estimate(child).value / (slowness * network_ms(child)) for child in children]
    return float(np.mean(np.abs(np.array(ratios) - 1)))


@pytest.fixture(scope="module")
def steady_error(tmp_path_factory: pytest.TempPathFactory) -> float:
    error = error_of(profiled(SimulatedDevice(), tmp_path_factory.mktemp("steady") / "t.jsonl"), 1.0)
    assert error < NOISE
    return error


@pytest.mark.parametrize(
    "device",
    [
        SimulatedDevice(slower_from_the_middle, slower_from_the_middle),
        SimulatedDevice(of_networks=slower_from_the_middle),
        SimulatedDevice(of_blocks=slower_from_the_middle),
        SimulatedDevice(of_networks=lambda taken: 1 + 0.1 * np.sin(taken / 20)),
    ],
    ids=["both", "networks", "blocks", "waves"],
)
def test_a_device_that_changes_while_it_is_profiled(
    device: SimulatedDevice, steady_error: float, tmp_path: Path
) -> None:
    """By 15%; the error stays what it is on a steady device, but for the noise of the sentinels."""
    assert error_of(profiled(device, tmp_path / "t.jsonl")) < max(1.2 * steady_error, NOISE / 2)


@pytest.mark.parametrize("interrupted", [0.6, 1.0])
def test_busy_programs_beside_it(interrupted: float, steady_error: float, tmp_path: Path) -> None:
    """Three of five runs, or all of them, take three times as long as they compute."""
    device = SimulatedDevice(interrupted=interrupted)
    device.random = np.random.default_rng(1)
    table = profiled(device, tmp_path / "t.jsonl")
    if interrupted < 1:
        assert error_of(table, 1.0) < max(1.3 * steady_error, NOISE)  # six runs of fifteen are left in a round
    else:  # nothing ever showed how long it takes alone
        assert table.usual_share is None


def judged(device: SimulatedDevice, path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    table = LatencyTable.read(path)
    children = unseen_children(table, SPACE, 12, seed=0)
    by_name = {f"child{number}": child for number, child in enumerate(children)}
    by_name |= {f"sentinel{number}": child for number, child in enumerate(table.references)}
    device.networks |= {name: network_ms(child) for name, child in by_name.items()}
    for module in (evaluate_module, table_probe):
        monkeypatch.setattr(module, "setup_of", lambda table, at=None: setup(device))
    return evaluate(table, children)


def sometimes(taken: int) -> bool:
    """For 7 of 17 samples, one after the other."""
    return taken % 17 < 7


def test_another_virtual_machine_on_the_core(
    steady_error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the table nor the children that judge it contain what was slowed."""
    path = tmp_path / "t.jsonl"
    table = profiled(SimulatedDevice(neighbour=sometimes), path)
    assert 0.3 < table.disturbed_share < 0.5
    assert error_of(table, 1.0) < max(1.3 * steady_error, NOISE)
    found = judged(SimulatedDevice(neighbour=sometimes), path, monkeypatch)
    assert abs(found.drift) < NOISE
    assert found.mape < NOISE
    assert found.repeatability_mape < NOISE


def test_a_device_that_changed_after_it_was_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 15% slower when it is judged. Predictions are scaled, and a check keeps that in the table."""
    path = tmp_path / "t.jsonl"
    profiled(SimulatedDevice(), path)
    slower = SimulatedDevice(of_networks=lambda taken: 1.15)
    found = judged(slower, path, monkeypatch)
    assert found.drift == pytest.approx(0.15, abs=NOISE)
    assert found.mape < NOISE
    assert found.mape_unscaled == pytest.approx(0.15 / 1.15, abs=NOISE)
    checked = recheck(LatencyTable.read(path), path)
    assert checked.scale == pytest.approx(1.15, abs=NOISE)
    assert error_of(checked, 1.15) < NOISE
    again = judged(slower, path, monkeypatch)
    assert abs(again.drift) < NOISE
    assert again.mape_unscaled < NOISE


def test_a_busy_device_gets_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    profiled(SimulatedDevice(), path)
    with pytest.raises(DmaskError, match="too busy to judge a table: other programs ran on the measuring core"):
        judged(SimulatedDevice(interrupted=1.0), path, monkeypatch)
    waves = SimulatedDevice(of_networks=lambda taken: 1 + np.random.default_rng(taken).random())
    with pytest.raises(DmaskError, match="even a perfect table would be"):
        judged(waves, path, monkeypatch)


def test_a_table_like_another(tmp_path: Path) -> None:
    """A device twice as slow; its table holds the other's latencies and names it, and goes on without it."""
    prior = profiled(SimulatedDevice(), tmp_path / "prior.jsonl")
    slower = SimulatedDevice(lambda taken: 2.0, lambda taken: 2.0)
    path = tmp_path / "like.jsonl"
    table = profile_space(SPACE, setup(slower), SETTINGS, path, like=prior)
    assert table.head.prior == prior.digest
    assert table.prior == {block: summary.typical_ms for block, summary in prior.blocks.items()}
    assert len(table.networks) == 10
    assert error_of(table, 2.0) < NOISE
    assert LatencyTable.read(path).prior == table.prior
    assert profile_space(SPACE, setup(slower), SETTINGS, path).rows == table.rows  # it was finished
    with pytest.raises(DmaskError, match="was begun with another table of --like; leave out --like"):
        profile_space(SPACE, setup(slower), SETTINGS, path, like=table)
    with pytest.raises(DmaskError, match="was begun without a table of --like"):
        profile_space(SPACE, setup(SimulatedDevice()), SETTINGS, tmp_path / "prior.jsonl", like=table)
