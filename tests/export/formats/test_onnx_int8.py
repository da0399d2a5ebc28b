"""int8 on x86 without VNNI, whose sums of two 8-bit products can overflow; an emulated Haswell is one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.export.factory import exported, images_of

HASWELL = ["qemu-x86_64-static", "-cpu", "Haswell"]
RUN = """
import pathlib, sys
import numpy as np
import onnxruntime
import torch
from export.formats.onnx.reader import OnnxModel

model, images, results = map(pathlib.Path, sys.argv[1:])
images = np.load(images)
(ours,) = OnnxModel(model).run(torch.from_numpy(images)).values()
plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
plain = np.concatenate([plain.run(None, {"input": image[None]})[0] for image in images])
np.savez(results, ours=ours, plain=plain)
"""


def scores(emulator: list[str], model: Path, images: Path) -> dict[str, np.ndarray]:
    """The scores (N, K) of the stored images, by `OnnxModel` and by a session with ONNX Runtime's own settings."""
    results = images.with_name("results.npz")
    command = [*emulator, sys.executable, "-c", RUN, model, images, results]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(results))


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 machine emulates another one")
def test_a_processor_without_vnni_computes_the_same(tmp_path: Path) -> None:
    model = tmp_path / exported("onnx", tmp_path, precision="int8").path
    images = tmp_path / "images.npy"
    np.save(images, images_of(count=8).numpy())
    here, there = scores([], model, images), scores(HASWELL, model, images)
    np.testing.assert_allclose(there["ours"], here["ours"], rtol=1e-5, atol=1e-5)
    assert np.abs(there["plain"] - there["ours"]).max() > 0.01 * np.ptp(here["ours"])  # it can overflow
