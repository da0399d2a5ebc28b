"""Tests of the modules of blocks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dmask_mobile.nets.blocks import DepthwiseConv2d


@given(
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_a_depthwise_convolution_in_training_gives_the_results_of_pytorchs_own(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    conv = DepthwiseConv2d(4, 4, kernel, stride, kernel // 2, groups=4, bias=False).double()
    plain = nn.Conv2d(4, 4, kernel, stride, kernel // 2, groups=4, bias=False).double()
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    results = []
    for module in (conv, plain):
        given_x = x.clone().requires_grad_()
        y = module(given_x)
        (y * y.detach().cos()).sum().backward()
        assert given_x.grad is not None
        assert module.weight.grad is not None
        results.append((y, given_x.grad, module.weight.grad))
    for own, theirs in zip(*results, strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("training", "padded"), [(True, True), (False, False)])
def test_a_small_map_is_padded_in_training_alone(training: bool, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = nn.functional.conv2d

    def conv2d(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(x.shape[-1])
        return real(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.functional, "conv2d", conv2d)
    conv = DepthwiseConv2d(4, 4, 5, 1, 2, groups=4).train(training)
    conv(torch.zeros(1, 4, 2, 2))
    assert seen == [4 if padded else 2]  # two pixels and one on each side
