"""Checks whether a runtime works on a device: a small block is converted and run, and its output is compared."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.block import BlockSpec
from export.verification.numerics import LIMITS
from latency_tables.devices import agent
from latency_tables.devices.device import MeasuringError
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.ssh import SshDevice
from latency_tables.processes import take_stdout
from latency_tables.runtimes.runtime import Runtime

BLOCK = BlockSpec(kind="inverted_residual", in_width=16, hidden_width=64, out_width=16, kernel=3, stride=1)
SHAPE = (1, BLOCK.in_width, 24, 24)
CONVERT_SECONDS, SAMPLE_SECONDS = 300.0, 0.05
START = "from latency_tables.diagnosis.runtime_check import main; main()"


class TrialModel(NamedTuple):
    """The block in a runtime's format, and PyTorch's output for the agent's input."""

    content: bytes
    output: list[float]


class Trial(NamedTuple):
    """Milliseconds of the block, and the largest difference to PyTorch as a share of the output's range."""

    ms: float
    error: float


def trial_model(runtime: Runtime, seconds: float = CONVERT_SECONDS) -> TrialModel:
    """The model for ``runtime``, converted in a separate process because a converter may crash or hang.

    Raises:
        DmaskError: if the converter fails, with the last line of its output.
    """
    command = [sys.executable, "-P", "-c", START, runtime.name]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except BaseException as error:  # including Ctrl-C
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # including the programs that it has started
            if isinstance(error, subprocess.TimeoutExpired):
                raise DmaskError(f"{runtime.name}'s converter has not ended after {seconds:g} s") from None
            raise
    if process.returncode:
        status = process.returncode
        cause = f"status {status}" if status > 0 else signal.Signals(-status).name
        said = stderr.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise DmaskError(f"{runtime.name}'s converter ended with {cause}: {said[-1]}")
    answer = json.loads(stdout)
    return TrialModel(base64.b64decode(answer["model"]), answer["output"])


def tried(device: LocalDevice | SshDevice, runtime: Runtime, model: TrialModel) -> Trial:
    """The result of the model on ``device``.

    Raises:
        MeasuringError: if the runtime fails there, or its output differs from PyTorch's.
        DmaskError: if the device cannot be reached.
    """
    with device.open(runtime, 1, "cpu") as session:
        session.load("trial", model.content)
        samples, output = session.sample("trial", SAMPLE_SECONDS), session.output("trial")
    error, limit = difference(output, model.output), LIMITS["fp32"].max_error
    if not error <= limit:
        raise MeasuringError(f"its output differs from PyTorch's by {error:.2g} of the range; allowed is {limit:g}")
    return Trial(float(np.median(samples.wall_ms)), error)


def difference(output: list[float], wanted: list[float]) -> float:
    """The largest difference as a share of the range of ``wanted``; infinite if their lengths differ."""
    if len(output) != len(wanted):
        return float("inf")
    return float(np.abs(np.subtract(output, wanted)).max() / np.ptp(wanted))


def main() -> None:
    """Writes the model and PyTorch's output, for `trial_model`."""
    import torch

    from dmask_mobile.nets.blocks import build_block
    from latency_tables.runtimes.registry import runtime_named

    answers = take_stdout()
    runtime, module = runtime_named(sys.argv[1]), build_block(BLOCK).eval()
    with torch.no_grad():
        output = module(torch.from_numpy(agent.random_input(SHAPE))).flatten().tolist()
    content = runtime.convert(module, SHAPE, "fp32")
    answers.write(json.dumps({"model": base64.b64encode(content).decode(), "output": output}).encode())
    answers.close()
