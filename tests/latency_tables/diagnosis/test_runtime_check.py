"""One block through a converter and a runtime, for real; and what is said when one of them fails."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from export.verification.numerics import LIMITS
from latency_tables.devices.device import MeasuringError
from latency_tables.devices.local import LocalDevice
from latency_tables.diagnosis.runtime_check import TrialModel, difference, trial_model, tried
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from tests.processes import wait_until

RUNTIME = OnnxRuntime()


@pytest.fixture(scope="module")
def model() -> TrialModel:
    return trial_model(RUNTIME)


def shadow(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a module before the real one in processes that are started from now on."""
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_block_runs_and_comes_to_the_numbers_of_pytorch(model: TrialModel) -> None:
    trial = tried(LocalDevice(), RUNTIME, model)
    assert trial.ms > 0
    assert trial.error <= LIMITS["fp32"].max_error


def test_other_numbers_are_refused(model: TrialModel) -> None:
    spread = max(model.output) - min(model.output)
    wrong = model._replace(output=[*model.output[:-1], model.output[-1] + 2e-4 * spread])
    with pytest.raises(
        MeasuringError, match=r"its output differs from PyTorch's by 0\.0002 of the range; allowed is 0\.0001"
    ):
        tried(LocalDevice(), RUNTIME, wrong)


def test_difference_by_hand() -> None:
    assert difference([1.0, 2.0, 5.5], [1.0, 2.0, 5.0]) == pytest.approx(0.5 / 4)
    assert difference([1.0, 2.0], [1.0, 2.0, 5.0]) == math.inf
    assert math.isnan(difference([math.nan, 2.0], [1.0, 2.0]))


def test_what_is_no_number_is_refused(model: TrialModel) -> None:
    with pytest.raises(MeasuringError, match="differs from PyTorch's by nan of the range"):
        tried(LocalDevice(), RUNTIME, model._replace(output=[math.nan] * len(model.output)))


def test_a_converter_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path, "onnx", "import os; os.abort()", monkeypatch)
    with pytest.raises(DmaskError, match="onnxruntime's converter ended with SIGABRT: "):
        trial_model(RUNTIME)


@pytest.mark.slow
def test_a_converter_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the programs that it has started, which hold its outputs open."""
    mark = tmp_path / "pid"
    text = (
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    shadow(tmp_path, "sitecustomize", text, monkeypatch)  # Python runs it first of all
    with pytest.raises(DmaskError, match="onnxruntime's converter has not ended after 20 s"):
        trial_model(RUNTIME, seconds=20.0)
    command_line = Path("/proc") / mark.read_text() / "cmdline"  # empty once a process has ended
    wait_until(lambda: not command_line.exists() or not command_line.read_bytes(), "the program has ended as well")
