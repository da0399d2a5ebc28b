from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dmask_mobile.errors import DmaskError
from dmask_mobile.training.machine import Machine

ROOT = Path(__file__).parents[3]


def run(what: str, folder: Path, processes: int = 2) -> None:
    folder.mkdir(exist_ok=True)
    program = [str(ROOT / "tests/dmask_mobile/training/of_processes.py"), what, str(folder)]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *program],
        env=environment,
        capture_output=True,
        timeout=300,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about what a CPU lacks")
def test_a_number_format_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(DmaskError, match=r"not fp16 on cpu; use --mixed-precision no"):
        Machine("fp16")
    assert Machine("bf16").mixed_precision == "bf16"
    assert Machine().mixed_precision == "no"


@pytest.mark.slow
def test_two_processes_come_to_what_one_does(tmp_path: Path) -> None:
    for processes in (1, 2):
        run("equal", tmp_path / str(processes), processes)
    one, two = (torch.load(tmp_path / str(count) / "equal.pt", weights_only=True) for count in (1, 2))
    for name, alone, shared in zip(("weights", "gates"), one, two, strict=False):
        difference, scale = float((alone - shared).abs().max()), float(alone.abs().max())
        assert scale > 0
        assert difference <= min(1e-6, 1e-5 * scale), name
    assert torch.equal(one[2], two[2])  # the drawn gates
    assert float(one[3].abs().max()) > 0.01
    assert float((one[3] - two[3]).abs().max()) <= 1e-4
    assert len(one[4]) == 8  # of single paths: the loss and the options of each child
    assert float((one[4] - two[4]).abs().max()) <= 1e-5


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    """A signal to one of them in the middle of an epoch stops both after the same step, with a checkpoint."""
    run("train", tmp_path / "undisturbed")
    run("stopped", tmp_path / "stopped")
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == ["stopped0", "stopped1", "t.pt"]
    run("train", tmp_path / "stopped")
    of_all = {(tmp_path / folder / f"trained{n}").read_text() for folder in ("undisturbed", "stopped") for n in (0, 1)}
    assert len(of_all) == 1


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_message(tmp_path: Path) -> None:
    run("lost", tmp_path)
    assert "another process of this run has ended" in (tmp_path / "error0").read_text()
