from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_network.command import parsed, plan_of, run
from own_network.given import inherited
from own_network.jobs import Job
from own_network.landing import _next, scaled
from own_network.summary import printed, summarized
from own_network.whole import Compared
from search_quality.protocol import Measuring

from dmask_mobile.nets.build import build
from dmask_mobile.records.space import load_space
from tests.dmask_mobile.api.test_own_network import OURS

TINY = ["--network", "ours_benched:net", "--data", "glyphs", "--resolution", "24", "--train-images", "200"]
TINY += ["--val-images", "50", "--seeds", "1", "--epochs", "1", "--given-epochs", "1"]
TINY += ["--profile-minutes", "1", "--budget", "0.75", "--teacher", "original", "--int8", "onnx"]
QUICK = Measuring(attempts=1, tolerance=0.025, rounds=1, seconds=0.005, passes=2, agreement=0.5)


@pytest.mark.slow
def test_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours_benched.py").write_text(OURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = plan_of(parsed(TINY)).model_copy(update={"measuring": QUICK})
    result = run(plan, tmp_path / "work", open_test=True)
    assert result is not None
    rows = result["rows"]
    assert [row["contender"] for row in rows] == ["original", "ours", "uniform", "macs", "scratch"]
    assert all(0 <= row["test"] <= 1 and row["ms"] > 0 for row in rows)
    by_name = {row["contender"]: row for row in rows}
    assert by_name["scratch"]["child"] == by_name["ours"]["child"]
    assert by_name["scratch"]["epochs"] > by_name["ours"]["epochs"]
    assert by_name["original"]["macs"] >= max(by_name[name]["macs"] for name in ("ours", "uniform", "macs"))
    (int8,) = result["int8"]
    assert int8["val"] == by_name["ours"]["val"]
    assert 0.5 < int8["agreement"] <= 1
    assert abs(int8["val_int8"] - int8["val"]) <= 1 - int8["agreement"]
    assert "scratch" in printed(result)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("result.json")}
    again = run(plan, tmp_path / "work", open_test=True)
    assert again is not None
    assert again["rows"] == rows
    assert done == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("result.json")}


def test_results_name_no_folder_of_this_machine() -> None:
    plan = plan_of(parsed([*TINY, "--data", "folder:/home/me/photos", "--weights", "/home/me/lite0.pth"]))
    described = plan.described()
    assert (described["data"], described["weights"], described["table"]) == ("folder:photos", "lite0.pth", None)


def test_a_network_is_scaled_uniformly() -> None:
    space = load_space("mobilenet_small")
    original = space.child(space.largest())
    assert scaled(original, 1.0, original.resolution) == original.model_copy(
        update={"name": f"{original.name}-1.000-{original.resolution}"}
    )
    half = scaled(original, 0.5, original.resolution)
    for own, other in zip(original.blocks[:-1], half.blocks[:-1], strict=True):
        assert abs(other.out_width - own.out_width / 2) <= 4
    build(half)


def test_a_network_inherits_the_first_channels() -> None:
    space = load_space("demo")
    widest, narrow = space.child(space.largest()), space.child(space.smallest())
    network = inherited(build(widest).state_dict(), narrow)
    first = build(widest).state_dict()["blocks.0.conv.weight"]
    assert torch.equal(network.state_dict()["blocks.0.conv.weight"], first[: narrow.blocks[0].out_width])


def test_differences_are_paired_by_seed() -> None:
    plan = plan_of(parsed([*TINY, "--seeds", "2", "--contenders", "ours", "uniform"]))
    space = load_space("demo")
    child, accuracies = space.child(space.largest()), {"ours": (0.5, 0.75), "uniform": (0.5, 0.625)}
    found = [
        Compared(Job(name, seed, child, plan.fine_tuning(seed), ""), _trained(value), 1.0, None, 1.0)
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    gain = summarized(plan, found, None)["by_split"]["val"]["ours_minus"]["uniform"]
    assert gain["mean"] == 0.0625
    assert gain["standard_error"] == pytest.approx(0.0625)  # of 0 and 0.125: half of their distance


def _trained(accuracy: float) -> dict[str, float]:
    return {"val": accuracy, "val_before": 0.1, "epochs": 1, "cpu_seconds": 1.0}


def test_the_next_proposal_follows_the_slope_of_the_last_two() -> None:
    assert _next([(0.0, 0.2)]) == -0.2  # as if the latency was proportional
    assert _next([(0.0, 0.2), (-0.2, 0.1)]) == pytest.approx(-0.4)  # it falls half as fast
