"""The blocks as PyTorch modules, one class for each kind of `BlockSpec`.

Every block maps (N, in_width, H, W) to (N, out_width, H', W'), the head to (N, classes). A bias before a batch
norm changes nothing and is left out everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmask_mobile.records.block import Activation, BlockSpec, Gate

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "hswish": nn.Hardswish}
GATES: dict[Gate, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hsigmoid": nn.Hardsigmoid}


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
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_width)
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


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al., 2018) with optional squeeze-excite before the projection."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.residual = spec.residual
        hidden = spec.hidden_width
        self.expand = ConvNorm(spec.in_width, hidden, activation=spec.activation) if spec.expand else nn.Identity()
        self.depthwise = ConvNorm(
            hidden, hidden, kernel=spec.kernel, stride=spec.stride, groups=hidden, activation=spec.activation
        )
        self.se = SqueezeExcite(hidden, spec.se_width, spec.activation, spec.se_gate) if spec.se_width else None
        self.project = ConvNorm(hidden, spec.out_width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        hidden_NHHW: Tensor = self.depthwise(self.expand(x_NCHW))
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
    """Global average pool and linear classifier: (N, C, H, W) to (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        scores: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x_NCHW, 1), 1))
        return scores


def build_block(spec: BlockSpec) -> nn.Module:
    """The module of one block, with PyTorch's default initialization."""
    match spec.kind:
        case "conv":
            return ConvNorm(
                spec.in_width, spec.out_width, kernel=spec.kernel, stride=spec.stride, activation=spec.activation
            )
        case "inverted_residual":
            return InvertedResidual(spec)
        case "skip":
            return nn.Identity()
        case "widening_skip":
            return ConvNorm(spec.in_width, spec.out_width, activation="relu")
        case "pooled_inverted_residual":
            return PooledInvertedResidual(spec)
        case "head":
            return Head(spec.in_width, spec.out_width)


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights anew from ``generator``: He et al.'s normal, fan out; classifier weights N(0, 0.01)."""
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
