"""The blocks as PyTorch modules, one class for each kind of `BlockSpec`.

Every block maps (N, in_width, H, W) to (N, out_width, H', W'), the head to (N, classes). A bias before a batch norm has
no effect, so convolutions before batch norms have no bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmask_mobile.records.block import NORM_EPS, Activation, BlockKind, BlockSpec, Gate, Padding

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "hswish": nn.Hardswish,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
}
GATES: dict[Gate, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hsigmoid": nn.Hardsigmoid}


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding SAME: with stride 2, it may pad more on the right and at the bottom."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        borders = []
        for size, kernel, stride in zip(_sizes(input)[::-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            borders += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(input, borders), weight, bias, self.stride, 0, self.dilation, self.groups)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution whose training is fast on maps that are smaller than the kernel.

    On a CPU, oneDNN computes the weight gradients of such maps 3 to 20 times faster if the map is padded before the
    convolution (benchmarks/train_step.py). Taps that reach no pixel are left out. Results are the same.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.training or input.device.type != "cpu" or min(input.shape[2:]) >= weight.shape[-1]:
            y_NCHW: Tensor = super()._conv_forward(input, weight, bias)
            return y_NCHW
        radius = weight.shape[-1] // 2
        reach = min(radius, max(input.shape[2:]) - 1)  # the distance of the farthest tap that any output needs
        near = slice(radius - reach, radius + reach + 1)
        padded = F.pad(input, [reach] * 4)
        return F.conv2d(padded, weight[:, :, near, near], bias, self.stride, 0, self.dilation, self.groups)


def _sizes(x_NCHW: Tensor) -> list[int]:
    """Height and width; constants where a graph is traced, which warns of that: an exported model has one size."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return list(x_NCHW.shape[2:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor to a Python integer")
        return [int(size) for size in x_NCHW.shape[2:]]


class ConvNorm(nn.Module):
    """Convolution, batch norm and, unless ``activation`` is None, an activation."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        norm_eps: float = NORM_EPS,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        # With stride 1 and an odd kernel, both kinds of padding are equal.
        same = padding == "same" and stride > 1 and kernel > 1
        kind = SameConv2d if same else DepthwiseConv2d if 1 < groups == in_width else nn.Conv2d
        self.conv = kind(in_width, out_width, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_width, norm_eps)
        self.act = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = self.act(self.norm(self.conv(x_NCHW)))
        return y_NCHW


class SqueezeExcite(nn.Module):
    """The channel gate of squeeze-excite (Hu et al., 2018): (N, C, H, W) to factors (N, C, 1, 1)."""

    def __init__(self, width: int, squeeze_width: int, activation: Activation, gate: Gate) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeeze_width, 1)
        self.act = ACTIVATIONS[activation]()
        self.excite = nn.Conv2d(squeeze_width, width, 1)
        self.gate = GATES[gate]()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        factors: Tensor = self.gate(self.excite(self.act(self.squeeze(F.adaptive_avg_pool2d(x_NCHW, 1)))))
        return factors


class ConvBlock(ConvNorm):
    """`ConvNorm` as a block, with a shortcut if its spec says so."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(
            spec.in_width,
            spec.out_width,
            kernel=spec.kernel,
            stride=spec.stride,
            activation=spec.activation,
            norm_eps=spec.norm_eps,
            padding=spec.padding,
        )
        self.residual = spec.residual

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = super().forward(x_NCHW)
        return x_NCHW + y_NCHW if self.residual else y_NCHW


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., 2018) with optional squeeze-excite before the projection.

    It also covers three variants: without the expansion (a depthwise separable convolution); with a depthwise
    convolution before the expansion or without the one after it (MobileNetV4's universal inverted bottleneck); and with
    expansion and depthwise convolution fused into one convolution (EfficientNet-EdgeTPU's fused block).
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.residual = spec.residual
        fused, hidden = spec.kind == "fused_inverted_residual", spec.hidden_width
        self.start = self._start(spec) if spec.start_kernel else nn.Identity()
        self.expand = self._expand(spec, fused) if spec.expand else nn.Identity()
        self.depthwise = nn.Identity() if fused or not spec.depthwise else self._depthwise(spec)
        se_activation = spec.se_activation or spec.activation
        self.se = SqueezeExcite(hidden, spec.se_width, se_activation, spec.se_gate) if spec.se_width else None
        self.project = ConvNorm(hidden, spec.out_width, norm_eps=spec.norm_eps)

    @staticmethod
    def _start(spec: BlockSpec) -> ConvNorm:
        return ConvNorm(
            spec.in_width,
            spec.in_width,
            kernel=spec.start_kernel,
            stride=1 if spec.depthwise else spec.stride,
            groups=spec.in_width,
            norm_eps=spec.norm_eps,
            padding=spec.padding,
        )

    @staticmethod
    def _expand(spec: BlockSpec, fused: bool) -> ConvNorm:
        return ConvNorm(
            spec.in_width,
            spec.hidden_width,
            kernel=spec.kernel if fused else 1,
            stride=spec.stride if fused else 1,
            activation=spec.activation,
            norm_eps=spec.norm_eps,
            padding=spec.padding,
        )

    @staticmethod
    def _depthwise(spec: BlockSpec) -> ConvNorm:
        return ConvNorm(
            spec.hidden_width,
            spec.hidden_width,
            kernel=spec.kernel,
            stride=spec.stride,
            groups=spec.hidden_width,
            activation=spec.activation,
            norm_eps=spec.norm_eps,
            padding=spec.padding,
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        hidden_NHHW: Tensor = self.depthwise(self.expand(self.start(x_NCHW)))
        if self.se is not None:
            hidden_NHHW = hidden_NHHW * self.se(hidden_NHHW)
        y_NCHW: Tensor = self.project(hidden_NHHW)
        return x_NCHW + y_NCHW if self.residual else y_NCHW


class PooledInvertedResidual(nn.Module):
    """MobileNetV3's last stage: expand, pool to one pixel, convolution without norm or bias, activation."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.expand = ConvNorm(spec.in_width, spec.hidden_width, activation=spec.activation)
        self.project = nn.Conv2d(spec.hidden_width, spec.out_width, 1, bias=False)
        self.act = ACTIVATIONS[spec.activation]()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NC11: Tensor = self.act(self.project(F.adaptive_avg_pool2d(self.expand(x_NCHW), 1)))
        return y_NC11


class Head(nn.Module):
    """Global average pool, a hidden layer if the spec has one, and a classifier: (N, C, H, W) to (N, classes)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        if spec.hidden_width:
            self.hidden = nn.Linear(spec.in_width, spec.hidden_width)
            self.act = ACTIVATIONS[spec.activation]()
        self.linear = nn.Linear(spec.hidden_width or spec.in_width, spec.out_width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pooled_NC = torch.flatten(F.adaptive_avg_pool2d(x_NCHW, 1), 1)
        if hasattr(self, "hidden"):
            pooled_NC = self.act(self.hidden(pooled_NC))
        scores: Tensor = self.linear(pooled_NC)
        return scores


BLOCKS: dict[BlockKind, Callable[[BlockSpec], nn.Module]] = {
    "conv": ConvBlock,
    "inverted_residual": InvertedResidual,
    "fused_inverted_residual": InvertedResidual,
    "skip": lambda spec: nn.Identity(),
    "widening_skip": lambda spec: ConvNorm(spec.in_width, spec.out_width, activation="relu"),
    "pooled_inverted_residual": PooledInvertedResidual,
    "head": Head,
}


def build_block(spec: BlockSpec) -> nn.Module:
    """The module of one block, with PyTorch's default initialization."""
    return BLOCKS[spec.kind](spec)


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights from ``generator``: He et al.'s normal initialization, fan out; the classifier's N(0, 0.01)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01, generator=generator)
            nn.init.zeros_(part.bias)
