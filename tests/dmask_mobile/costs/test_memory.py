"""Bytes of weights and activations."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmask_mobile.costs.memory import PeakActivationBytes, WeightBytes
from dmask_mobile.nets.build import build
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.search.derive import PeakLimit, derive, log_scores, score_of
from dmask_mobile.supernet.gates import GateLogits, one_hot_gates
from export.formats.onnx.writer import to_onnx
from tests.dmask_mobile.search.test_derive import all_choices, random_probabilities
from tests.dmask_mobile.small import SPACE
from tests.strategies import spaces, spaces_with_choice


def test_peak_of_one_block_by_hand() -> None:
    block = BlockSpec(
        kind="inverted_residual", in_width=16, hidden_width=48, out_width=16, kernel=3, se_width=16, residual=True
    )
    before, wide = 16 * 14 * 14, 48 * 14 * 14
    # expand: input and hidden map; depthwise: two hidden maps, and the input is kept for the shortcut
    assert PeakActivationBytes().block_cost(block, 14) == 4 * max(before + wide, 2 * wide + before)
    plain = block.model_copy(update={"residual": False, "stride": 2})
    assert PeakActivationBytes().block_cost(plain, 14) == 4 * max(before + wide, wide + 48 * 7 * 7)


def peak_of_onnx(model: bytes) -> int:
    """Liveness over an ONNX graph, independent of the cost model: bytes of tensors alive while each node runs.

    As in the cost model, elementwise nodes work in place, so that their output is their first input.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    shapes |= {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    alias: dict[str, str] = {}
    for node in graph.node:  # weights that are passed on are no activations
        if not any(name in shapes for name in node.input):
            for name in node.output:
                del shapes[name]

    def tensor(name: str) -> str:
        return alias.get(name, name)

    for node in graph.node:
        if node.op_type in ("Relu", "HardSwish", "HardSigmoid", "Clip", "Mul", "Add", "Flatten", "Reshape", "Identity"):
            inputs = [name for name in node.input if name in shapes]
            if inputs:
                alias[node.output[0]] = tensor(max(inputs, key=lambda n: np.prod(shapes[n])))
    last_use = {tensor(name): number for number, node in enumerate(graph.node) for name in node.input if name in shapes}
    born = {tensor(v.name): -1 for v in graph.input}
    for number, node in enumerate(graph.node):
        for name in filter(shapes.__contains__, node.output):
            born.setdefault(tensor(name), number)
    alive_at = [
        sum(4 * int(np.prod(shapes[t])) for t in born if born[t] <= number <= last_use.get(t, born[t]))
        for number in range(len(graph.node))
    ]
    return max(alive_at)


@pytest.mark.slow
@given(spaces_with_choice())
@settings(max_examples=20)
def test_peak_is_what_liveness_over_the_exported_graph_says(case: tuple[SearchSpace, Choice]) -> None:
    child = case[0].child(case[1])
    network = build(child).eval()
    assert PeakActivationBytes().estimate(child).value == peak_of_onnx(to_onnx(network, child.input_shape))


@given(spaces_with_choice())
def test_one_hot_gates_give_the_estimate(case: tuple[SearchSpace, Choice]) -> None:
    space, choice = case
    for model in (PeakActivationBytes(), WeightBytes()):
        cost, value = model.on(space), model.estimate(space.child(choice)).value
        assert cost.cost(choice) == value
        assert cost.expected(one_hot_gates(space, choice)).item() == value


@given(spaces())
def test_reachable_peaks_are_those_of_all_children(space: SearchSpace) -> None:
    assume(np.prod([float(len(d.options)) for d in space.decisions]) <= 1000)
    cost = PeakActivationBytes().on(space)
    peaks = [cost.cost(choice) for choice in all_choices(space)]
    assert cost.reachable() == (min(peaks), max(peaks))


def test_expected_peak_is_a_lower_bound_of_the_mean() -> None:
    cost, generator = PeakActivationBytes().on(SPACE), random.Random(0)
    mean = np.mean([cost.cost(SPACE.sample(generator)) for _ in range(2000)])
    assert 0.8 * mean < cost.expected(GateLogits(SPACE).probabilities()).item() <= 1.01 * mean


@given(spaces(), st.integers(0, 2**32), st.floats(0.05, 1), st.floats(0.2, 1))
def test_peak_is_a_filter_of_the_derivation(space: SearchSpace, seed: int, place: float, share: float) -> None:
    assume(np.prod([float(len(d.options)) for d in space.decisions]) <= 1000)
    peak, size = PeakActivationBytes().on(space), WeightBytes().on(space)
    choices = all_choices(space)
    peaks, sizes = (np.array([cost.cost(choice) for choice in choices]) for cost in (peak, size))
    limit = peaks.min() + place * (peaks.max() - peaks.min())
    budget = sizes[peaks <= limit].min() * (1 - share) + share * sizes[peaks <= limit].max()
    probabilities = random_probabilities(space, seed)
    scores = np.array([score_of(space, log_scores(probabilities), choice) for choice in choices])
    inside = (peaks <= limit) & (sizes <= budget)
    near = inside & (sizes >= 0.95 * budget)

    derived = derive(size, probabilities, float(budget), peaks=[PeakLimit(peak, float(limit))])

    assert peak.cost(derived.choice) <= limit
    assert derived.lower_bound_relaxed == (not near.any())
    assert derived.score == pytest.approx(scores[near if near.any() else inside].max(), abs=1e-9)


def test_weight_bytes_are_those_of_weights_and_folded_biases() -> None:
    space = load_space("demo")
    child = space.child(space.smallest())
    network = build(child)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    expected = 4 * sum(m.weight.numel() + m.weight.shape[0] for m in convolutions)
    assert WeightBytes().estimate(child).value == expected
