"""The oldest runtimes that docs/exporting.md promises take our files and give the golden outputs.

They are installed from the package registry into an environment of their own; without it these tests are skipped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.factory import exported

pytestmark = pytest.mark.slow

OLDEST = {"onnx": "onnxruntime==1.16.3", "litert": "tflite-runtime==2.14.0"}  # the oldest for Python 3.11
RUN_GOLDEN = """
import json, pathlib, sys
import numpy as np

def onnx(path, image):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": image})[0]

def litert(path, image):
    from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

run, folder = {"onnx": onnx, "litert": litert}[sys.argv[1]], pathlib.Path(sys.argv[2])
records = sorted((folder / "golden").glob("*.json"))
for record in map(json.loads, (path.read_text() for path in records)):
    image = np.fromfile(folder / "golden" / record["input"], "<f4").reshape(record["input_shape"])
    error = np.abs(run(str(folder / record["artifact"]), image).ravel() - record["output"]).max()
    assert error <= record["output_tolerance"], (record["artifact"], error)
print(len(records))
"""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the oldest runtimes are known for Python 3.11")
@pytest.mark.parametrize("format_name", OLDEST)
def test_the_oldest_runtime_gives_the_golden_outputs(format_name: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--retries", "1", OLDEST[format_name], "numpy<2"]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{OLDEST[format_name]} does not install: {installed.stderr.strip().splitlines()[-1]}")
    for precision in ("fp32", "fp16", "int8"):
        exported(format_name, tmp_path / "exports", precision=precision)
    command = [python, "-c", RUN_GOLDEN, format_name, str(tmp_path / "exports")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
