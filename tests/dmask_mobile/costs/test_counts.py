"""Invariant 2, and the published networks' published counts."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.nets.build import build
from dmask_mobile.nets.named import named_child, named_children
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.supernet.gates import GateLogits, one_hot_gates
from export.formats.onnx.reader import OnnxModel
from export.formats.onnx.writer import to_onnx
from export.verification.counts import count_fvcore
from tests.strategies import spaces_with_choice

# Millions, as the authors publish them (mobile-vision repository, model zoo of FBNetV2 and FBNet).
PUBLISHED = {
    "fbnetv2_f1": (56.41056, 5.999408),
    "fbnetv2_f2": (85.441392, 5.999408),
    "fbnetv2_f3": (121.824, 6.899504),
    "fbnetv2_f4": (238.351984, 6.994824),
    "fbnet_c": (378.23344, 5.52542),
}


def pooling_macs(child: ChildSpec) -> int:
    """The authors count an average pool as one multiply-add for each input element (squeeze-excite, ir_pool, head)."""
    total = 0
    for block, in_size in child.located_blocks():
        if block.se_width:
            total += block.hidden_width * block.out_size(in_size) ** 2
        if block.kind == "pooled_inverted_residual":
            total += block.hidden_width * in_size**2
        if block.kind == "head":
            total += block.in_width * in_size**2
    return total


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_counts(name: str) -> None:
    child = named_child(name)
    macs, params = PUBLISHED[name]
    assert (Macs().estimate(child).value + pooling_macs(child)) / 1e6 == pytest.approx(macs, abs=1e-9)
    assert round(Params().estimate(child).value / 1e6, 5 if name == "fbnet_c" else 6) == params


def test_all_named_networks_are_compared() -> None:
    assert set(PUBLISHED) == set(named_children())


@pytest.mark.parametrize("name", ["fbnetv2_f1", "fbnet_c"])
def test_published_networks_equal_fvcore_and_onnx(name: str, tmp_path: Path) -> None:
    assert_counts_agree(named_child(name), tmp_path)


def assert_counts_agree(child: ChildSpec, folder: Path) -> None:
    network = build(child).eval()
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(network, child.input_shape))
    onnx.checker.check_model(path)
    expected = (Macs().estimate(child).value, Params().estimate(child).value)
    assert count_fvcore(network, child.input_shape) == expected
    assert OnnxModel(path).counts() == expected


@given(spaces_with_choice())
@settings(max_examples=10)
def test_gates_equal_estimate_equal_fvcore_equal_onnx(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[SearchSpace, Choice]
) -> None:
    space, choice = case
    child = space.child(choice)
    gates = one_hot_gates(space, choice)
    assert Macs().on(space).expected(gates).item() == Macs().estimate(child).value
    assert Params().on(space).expected(gates).item() == Params().estimate(child).value
    assert_counts_agree(child, tmp_path_factory.mktemp("onnx"))


@given(spaces_with_choice())
@settings(max_examples=10)
def test_expected_cost_is_the_mean_over_sampled_children(case: tuple[SearchSpace, Choice]) -> None:
    space, _ = case
    logits = GateLogits(space)
    with torch.no_grad():
        logits.logits.normal_(generator=torch.Generator().manual_seed(5))
        gates = logits.probabilities()
        cost = Macs().on(space)
        generator = torch.Generator().manual_seed(6)
        columns = [torch.multinomial(gate, 2000, replacement=True, generator=generator).tolist() for gate in gates]
        sampled = torch.tensor(
            [cost.cost(Choice(indices=tuple(row))) for row in zip(*columns, strict=True)], dtype=torch.float64
        )
    error = float(sampled.std() / len(sampled) ** 0.5)
    assert cost.expected(gates).item() == pytest.approx(float(sampled.mean()), abs=5 * error + 1e-6)


def test_macs_of_one_block_by_hand() -> None:
    block = BlockSpec(
        kind="inverted_residual", in_width=16, hidden_width=48, out_width=24, kernel=5, stride=2, se_width=16
    )
    expand, depthwise, squeeze, project = 16 * 48 * 14 * 14, 25 * 48 * 7 * 7, 2 * 48 * 16, 48 * 24 * 7 * 7
    assert Macs().block_cost(block, 14) == expand + depthwise + squeeze + project
    assert Params().block_cost(block, 14) == 16 * 48 + 25 * 48 + 2 * 48 * 16 + 48 * 24
