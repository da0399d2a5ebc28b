from __future__ import annotations

import pytest
import torch

from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.nets.named import named_child, named_children


@pytest.mark.parametrize("name", named_children())
def test_named_network_runs(name: str) -> None:
    child = named_child(name)
    assert child.name == name
    with torch.no_grad():
        assert build(child).eval()(torch.zeros(child.input_shape)).shape == (1, 1000)


def test_all_block_kinds_of_the_published_networks_are_there() -> None:
    kinds = {block.kind for name in named_children() for block in named_child(name).blocks}
    assert kinds == {"conv", "inverted_residual", "skip", "widening_skip", "pooled_inverted_residual", "head"}


def test_the_same_generator_gives_the_same_weights() -> None:
    child = named_child("fbnetv2_f1")
    first, second = (build(child, torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unknown_name() -> None:
    with pytest.raises(DmaskError, match="no network named 'resnet50'; the published networks are fbnet_c, fbnetv2_f1"):
        named_child("resnet50")
