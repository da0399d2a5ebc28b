from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from dmask_mobile import api
from dmask_mobile.errors import DmaskError
from dmask_mobile.search.derive import derive
from dmask_mobile.supernet.gates import GateLogits, one_hot_gates
from examples.depth_cost import Depth
from tests.dmask_mobile.small import SPACE


def test_depth_is_counted_expected_and_held() -> None:
    cost = Depth().on(SPACE)
    generator = random.Random(0)
    for _ in range(20):
        choice = SPACE.sample(generator)
        kept = sum(block.kind != "skip" for block in SPACE.child(choice).blocks)
        assert Depth().estimate(SPACE.child(choice)).value == kept
        assert cost.expected(one_hot_gates(SPACE, choice)).item() == kept
    probabilities = GateLogits(SPACE).as_arrays()
    assert cost.cost(derive(cost, probabilities, 4).choice) == 4
    assert cost.reachable() == (4, 5)
    assert cost.expected([torch.tensor(p) for p in probabilities]).item() == pytest.approx(4.5)


def test_it_loads_by_module_and_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert api.cost_model("depth", costs=[api.load_cost("examples.depth_cost:Depth")]).unit == "blocks"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:Cost", "custom cost 'nowhere:Cost': loading it"),
        ("json:Nothing", "custom cost 'json:Nothing': loading it"),
        ("json", "custom cost 'json': loading it"),
        ("json:JSONDecoder", "must be a subclass of dmask_mobile.costs.model.AdditiveCost"),
    ],
)
def test_bad_costs(path: str, message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        api.load_cost(path)


def test_unknown_cost_names_the_known() -> None:
    with pytest.raises(
        DmaskError,
        match=r"no cost 'speed'; choose one of latency, memory, energy, macs, .*_bytes, depth, or add your own",
    ):
        api.cost_model("speed", costs=[Depth()])
