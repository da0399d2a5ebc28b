"""Invariant 1: the supernet with one-hot gates equals the child with its slice of the weights."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, load_space, shipped_spaces
from dmask_mobile.supernet.gates import one_hot_gates
from dmask_mobile.supernet.resolution import subsample
from dmask_mobile.supernet.subnet import extract_subnet
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.strategies import spaces_with_choice


def random_supernet(space: SearchSpace, dtype: torch.dtype) -> MaskedSupernet:
    """Makes every weight, bias, norm parameter and statistic random, so that no zero or one hides an error."""
    generator = torch.Generator().manual_seed(1)
    supernet = MaskedSupernet(space).to(dtype)
    with torch.no_grad():
        for name, value in supernet.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif "norm" in name and value.is_floating_point():
                value.normal_(0.3, 0.5, generator=generator)
            elif name.endswith("bias"):
                value.normal_(generator=generator)
        supernet.blocks[-1].linear.weight.normal_(generator=generator)
    return supernet


def outputs(
    space: SearchSpace, choice: Choice, train: bool, dtype: torch.dtype, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    supernet = random_supernet(space, dtype)
    child = extract_subnet(supernet, choice)
    x = torch.randn(
        batch, space.input.channels, space.resolution, space.resolution, dtype=dtype,
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    supernet.train(train)
    child.train(train)
    with torch.no_grad():
        of_child = child(subsample(x, space.child(choice).resolution))
        return supernet(x, one_hot_gates(space, choice, dtype)), of_child


@given(spaces_with_choice(), st.booleans())
def test_one_hot_supernet_is_the_child_in_float64(case: tuple[SearchSpace, Choice], train: bool) -> None:
    of_supernet, of_child = outputs(*case, train, torch.float64, 4)
    assert of_child.abs().max() > 1e-3
    torch.testing.assert_close(of_supernet, of_child, rtol=0, atol=1e-9)


@given(spaces_with_choice())
def test_one_hot_supernet_is_the_child_in_float32_training(case: tuple[SearchSpace, Choice]) -> None:
    of_supernet, of_child = outputs(*case, True, torch.float32, 16)
    scale = max(1.0, float(of_child.abs().max()))
    torch.testing.assert_close(of_supernet / scale, of_child / scale, rtol=0, atol=1e-5)


@given(spaces_with_choice())
def test_a_child_alone_is_the_supernet_with_one_hot_gates(case: tuple[SearchSpace, Choice]) -> None:
    """Outputs, running statistics, and the gradients of all shared weights, in float64."""
    space, choice = case
    shape = (4, space.input.channels, space.resolution, space.resolution)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = []
    outputs = []
    for gates in (choice, one_hot_gates(space, choice, torch.float64)):
        supernet = random_supernet(space, torch.float64).train()
        outputs.append(supernet(x, gates))
        outputs[-1].square().mean().backward()
        gradients.append({name: value.grad for name, value in supernet.named_parameters()})
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-9)
    scale = max(float(g.abs().max()) for g in gradients[1].values() if g is not None)
    for name, gradient in gradients[0].items():
        assert gradient is not None, name  # several processes average the gradients of all parameters
        masked = gradients[1][name]
        expected = torch.zeros_like(gradient) if masked is None else masked
        torch.testing.assert_close(gradient / scale, expected / scale, rtol=0, atol=1e-9)


@pytest.mark.slow
@given(spaces_with_choice())
def test_running_statistics_of_the_child_are_learned_in_the_supernet(case: tuple[SearchSpace, Choice]) -> None:
    space, choice = case
    supernet = random_supernet(space, torch.float64).train()
    child = extract_subnet(supernet, choice).train()
    x = torch.randn(4, space.input.channels, space.resolution, space.resolution, dtype=torch.float64)
    with torch.no_grad():
        supernet(x, one_hot_gates(space, choice, torch.float64))
        child(subsample(x, space.child(choice).resolution))
    for name, value in extract_subnet(supernet, choice).state_dict().items():
        torch.testing.assert_close(value, child.state_dict()[name], rtol=0, atol=1e-9)


def test_largest_child_has_all_weights() -> None:
    space = load_space("demo")
    supernet = MaskedSupernet(space)
    child = extract_subnet(supernet, space.largest())
    assert sum(p.numel() for p in child.parameters()) == sum(p.numel() for p in supernet.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_spaces())
def test_shipped_spaces_hold_the_invariants_for_40_random_children(name: str) -> None:
    """At the real resolutions, evaluation mode; with `test_counts` this makes 200 children over all spaces."""
    space = load_space(name).with_classes(10)
    supernet = random_supernet(space, torch.float64).eval()
    generator = random.Random(0)
    x = torch.randn(1, 3, space.resolution, space.resolution, dtype=torch.float64)
    macs, params = Macs().on(space), Params().on(space)
    for _ in range(40):
        choice = space.sample(generator)
        child, gates = space.child(choice), one_hot_gates(space, choice, torch.float64)
        assert macs.expected(gates).item() == Macs().estimate(child).value
        assert params.expected(gates).item() == Params().estimate(child).value
        network = extract_subnet(supernet, choice).eval()
        with torch.no_grad():
            of_child = network(subsample(x, child.resolution))
            torch.testing.assert_close(supernet(x, gates), of_child, rtol=1e-9, atol=1e-9)
