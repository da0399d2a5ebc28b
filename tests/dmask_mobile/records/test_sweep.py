from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.records.sweep import SweepDesign, SweepRecord

GOLDEN = Path(__file__).parents[2] / "golden"


def test_golden_files_of_version_1_still_read() -> None:
    design = SweepDesign.read(GOLDEN / "sweep_design_v1.json")
    assert (design.budgets, design.seeds) == ({"latency": (0.05, 0.065, 0.08, 0.095)}, (0, 1))
    assert design.train_options == {"epochs": "10", "batch-size": "16"}
    record = SweepRecord.read(GOLDEN / "sweep_v1.json")
    assert record.design_digest == design.digest()
    assert record.num_runs == len(record.points) == 8
    best = max(record.points, key=lambda point: point.accuracy)
    assert best.on_front
    assert record.cost_of(best, "latency") == best.costs["latency"] == pytest.approx(0.0765, abs=1e-4)
