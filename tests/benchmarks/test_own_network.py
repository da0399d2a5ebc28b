from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from own_network.command import parsed, plan_of, run
from own_network.given import inherited
from own_network.landing import scaled
from own_network.plan import CONTENDERS
from own_network.summary import printed
from search_quality.protocol import Measuring

from dmask_mobile.nets.build import build
from dmask_mobile.records.space import load_space
from tests.dmask_mobile.api.test_own_network import OURS

TINY = ["--network", "ours_benched:net", "--data", "glyphs", "--resolution", "16", "24", "--train-images", "200"]
TINY += ["--val-images", "50", "--seeds", "2", "--epochs", "1", "--given-epochs", "1", "--search-epochs", "2"]
TINY += ["--evaluations", "8", "--profile-minutes", "1", "--contenders", *CONTENDERS[1:]]
QUICK = Measuring(attempts=1, tolerance=0.025, rounds=1, seconds=0.005, passes=2, agreement=0.5)


@pytest.mark.slow
def test_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours_benched.py").write_text(OURS)
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = plan_of(parsed(TINY)).model_copy(update={"measuring": QUICK})
    result = run(plan, tmp_path / "work", open_test=True)
    assert result is not None
    rows = result["rows"]
    assert [(row["contender"], row["seed"]) for row in rows] == [(name, n) for n in (0, 1) for name in CONTENDERS[1:]]
    assert all(0 <= row["test"] <= 1 and row["ms"] > 0 for row in rows)
    by_name = {row["contender"]: row for row in rows}
    assert by_name["scratch"]["child"] == by_name["ours"]["child"]
    assert by_name["scratch"]["epochs"] > by_name["ours"]["epochs"]
    assert by_name["uniform_resolution"]["resolution"] == 16
    ours, others = (np.mean([row["test"] for row in rows if row["contender"] == name]) for name in ("ours", "uniform"))
    assert result["by_split"]["test"]["ours_minus"]["uniform"]["mean"] == pytest.approx(ours - others)
    assert "ours - uniform" in printed(result)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("result.json")}
    again = run(plan, tmp_path / "work", open_test=True)
    assert again is not None
    assert again["rows"] == rows
    assert done == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("result.json")}


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
