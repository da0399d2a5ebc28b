"""Quantization-aware training: the network computes as it will in int8, with gradients as if nothing were rounded.

PyTorch's own preparation for this (torchao's ``prepare_qat_pt2e``) trains a traced copy of the network with other
modules, so checkpoints, moving averages and stochastic depth of a training would not apply to it, and it imitates one
format only. Here the network's own weights are trained, and every export quantizes them as always.

Imitated is what static int8 has in common in ONNX Runtime, LiteRT and XNNPACK: weights are symmetric with one scale for
each output channel; the tensors between layers are asymmetric with one scale each, from their extremes. The extremes
are those of a batch here and those of the calibration images in an export, so training has no state of its own.
Rounding alone teaches little: the error comes from few activations of 20 to 60 deviations, for which the scale has to
leave room, and it hardly changes the loss. So `FakeQuantized.spread` measures this directly, and the loss contains it.
A batch norm behind a convolution is folded by exports. That multiplies a channel's weights and its scale by the same
factor, so that weights may be rounded before the folding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dmask_mobile.nets.blocks import ConvNorm, SqueezeExcite

LEVELS = 255  # of an activation's 8 bits
MOST = 127  # of a weight
SMALLEST_SCALE, EPSILON = 1e-8, 1e-6
SPREAD_WEIGHT = 0.25  # in the loss; docs/training.md compares it with other weights
FUSED = (nn.ReLU, nn.ReLU6)  # part of the layer before them, so that only their output is rounded
LAYERS = (nn.Conv2d, nn.Linear)


class FakeQuantized(nn.Module):
    """The network; while ``active``, it computes as in int8.

    Args:
        network: the network; its weights remain its own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.active = False
        self._spreads: list[Tensor] = []

    @property
    def spread(self) -> Tensor:
        """The mean over all activations of the last forward pass of ``log(range / deviation)``; it has a gradient."""
        return torch.stack(self._spreads).mean()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if not self.active:
            scores: Tensor = self.network(images_NCHW)
            return scores
        rounded = {
            f"{name}.weight": rounded_weights(part.weight)
            for name, part in self.network.named_modules()
            if isinstance(part, LAYERS)
        }
        self._spreads = []
        with _rounded_activations(self.network, self._spreads):
            scores = functional_call(self.network, rounded, (images_NCHW,))
        return scores


def rounded_weights(weight_KX: Tensor) -> Tensor:
    """The weights (K, ...) rounded to 255 levels that are symmetric about 0, with a scale for each of K."""
    scale_K = weight_KX.detach().float().flatten(1).abs().amax(1).div(MOST).clamp(min=SMALLEST_SCALE)
    zero_K = torch.zeros_like(scale_K, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight_KX, scale_K, zero_K, 0, -MOST, MOST)


def rounded_activation(values: Tensor) -> Tensor:
    """The values rounded to 256 levels between their extremes, one of which is 0."""
    low, high = torch.aminmax(values.detach().float())
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / LEVELS).clamp(min=SMALLEST_SCALE)
    zero = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, LEVELS)


def spread_of(values: Tensor) -> Tensor:
    """``log(range / deviation)`` of the values, where the range contains 0."""
    low, high = torch.aminmax(values.float())
    return torch.log((high.clamp(min=0) - low.clamp(max=0) + EPSILON) / (values.float().std() + EPSILON))


@contextmanager
def _rounded_activations(network: nn.Module, spreads: list[Tensor]) -> Iterator[None]:
    """A context in which inputs and outputs of layers are rounded; norms and ReLUs belong to the layer before them.

    The spread of each of these tensors is added to ``spreads``.
    """

    def rounded(values: Tensor) -> Tensor:
        spreads.append(spread_of(values))
        return rounded_activation(values)

    def round_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounded(inputs[0]), *inputs[1:])

    def round_output(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return rounded(output)

    handles = []
    for part in network.modules():
        if isinstance(part, LAYERS):
            handles.append(part.register_forward_pre_hook(round_input))
        if isinstance(part, nn.Linear):
            handles.append(part.register_forward_hook(round_output))
        if isinstance(part, ConvNorm):
            inside = part.act if isinstance(part.act, FUSED) else part.norm
            handles.append(inside.register_forward_hook(round_output))
        if isinstance(part, SqueezeExcite):
            handles += [gate.register_forward_hook(round_output) for gate in (part.squeeze, part.excite, part.gate)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
