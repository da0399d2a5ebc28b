"""What every device must do, whatever runtime it has; and what every runtime must do, on whatever device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.block import BlockSpec
from latency_tables.devices import agent
from latency_tables.devices.agent_session import AgentSession
from latency_tables.devices.device import Device, MeasuringError
from latency_tables.runtimes.runtime import Runtime

BLOCK, IN_SIZE = BlockSpec(kind="inverted_residual", in_width=8, hidden_width=16, out_width=8, kernel=3, stride=1), 12
SHAPE = (1, 8, IN_SIZE, IN_SIZE)
LIMITS: dict[Precision, float] = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.15}  # of the output's range


def check_device(device: Device, runtime: Runtime, precision: Precision = "fp32") -> None:
    """The contract of `Device` and `Session`, with a model of ``runtime``."""
    torch.manual_seed(0)
    module = build_block(BLOCK).eval()
    model = runtime.convert(module, SHAPE, precision)
    info = device.describe(runtime)
    assert info.device
    assert info.runtime_version
    assert info.cores >= 1
    assert device.describe(runtime) == info
    with device.open(runtime, 1, "cpu") as session:
        session.load("a", model)
        first = session.sample("a", 0.002)
        assert min(first.wall_ms) > 0
        assert not first.cpu_ms or len(first.cpu_ms) == len(first.wall_ms)
        with pytest.raises(MeasuringError):
            session.load("bad", b"no model")
        assert min(session.sample("a", 0.002).wall_ms) > 0  # a bad model has not spoilt the good one
        session.load("b", model)
        session.unload("a")
        session.unload("never loaded")
        assert min(session.sample("b", 0.002).wall_ms) > 0
        conditions = session.conditions()
        assert conditions is None or conditions.thermal_status is None or conditions.thermal_status >= 0
        if isinstance(session, AgentSession):
            assert session.shares("b") == {}  # only Core ML estimates them
            check_output(session.output("b"), module, precision)


def check_output(output: list[float], module: torch.nn.Module, precision: Precision) -> None:
    """What the device computes is what PyTorch does with the agent's input."""
    image = agent.random_input(SHAPE)
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)).numpy()
    found = np.array(output)
    assert found.shape == wanted.ravel().shape
    assert np.abs(found - wanted.ravel()).max() <= LIMITS[precision] * np.ptp(wanted)
