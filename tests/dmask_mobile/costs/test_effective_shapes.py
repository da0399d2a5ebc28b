from __future__ import annotations

import pytest
import torch
from hypothesis import given

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.costs.effective_shapes import EffectiveShapes
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.supernet.gates import one_hot_gates
from tests.strategies import spaces_with_choice


@given(spaces_with_choice())
def test_one_hot_gates_give_the_estimate(case: tuple[SearchSpace, Choice]) -> None:
    space, choice = case
    gates = one_hot_gates(space, choice)
    child = space.child(choice)
    assert EffectiveShapes(space, "macs").expected(gates).item() == Macs().estimate(child).value
    assert EffectiveShapes(space, "params").expected(gates).item() == Params().estimate(child).value


def test_both_ends_of_a_layer_are_effective() -> None:
    """Computed by hand: stem of width 8 or 16, last convolution of width 16 or 32 (each 1/2), a block without
    options."""
    space = SearchSpace.model_validate(
        {
            "name": "hand",
            "classes": 2,
            "input": {"resolutions": [8]},
            "stem": {"widths": [8, 16], "stride": 1},
            "stages": [{"blocks": 1, "widths": [8], "expansions": [1]}],
            "last": {"widths": [16, 32]},
        }
    )
    halves = [torch.full((len(d.options),), 1 / len(d.options)) for d in space.decisions]
    stem, hidden, last = 12, 12, 24  # mean widths; hidden = round8(width), 8 or 16
    expected = 64 * (27 * stem + stem * hidden + 9 * hidden + hidden * 8 + 8 * last) + last * 2
    assert EffectiveShapes(space, "macs").expected(halves).item() == pytest.approx(expected)
    # the expand convolution's ends share the stem's gate: E[c^2] = (64 + 256) / 2, not 12^2
    exact = expected + 64 * ((64 + 256) / 2 - 12 * 12)
    assert Macs().on(space).expected(halves).item() == pytest.approx(exact)


def test_it_is_differentiable_in_every_gate() -> None:
    space = SearchSpace.model_validate(
        {
            "name": "all",
            "classes": 2,
            "input": {"resolutions": [8, 16]},
            "stem": {"widths": [8, 16]},
            "stages": [
                {"blocks": 2, "widths": [8, 16], "expansions": [1, 2], "kernels": [3, 5],
                 "squeeze_excite": [False, True], "skip": True}
            ],
            "last": {"widths": [16, 32]},
        }
    )  # fmt: skip
    gates = [torch.full((len(d.options),), 1 / len(d.options), requires_grad=True) for d in space.decisions]
    cost = EffectiveShapes(space, "macs").expected(gates)
    gradients = torch.autograd.grad(cost, gates)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
