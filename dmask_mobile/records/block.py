"""`BlockSpec`: one block of a child network, with every number that its construction needs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dmask_mobile.records.base import Record

BlockKind = Literal["conv", "inverted_residual", "skip", "widening_skip", "pooled_inverted_residual", "head"]
Activation = Literal["relu", "hswish"]
Gate = Literal["sigmoid", "hsigmoid"]

# What networks for phones stay far below: a record beyond is a mistake, or would fill the memory of who reads it.
MAX_WIDTH = 65_536  # channels, classes; ImageNet-21k has 21,841 classes
MAX_KERNEL = 31  # the widest of published convolutional networks (RepLKNet)
MAX_SIZE = 8_192  # pixels of height and width
MAX_WEIGHTS = 2**28  # of one layer, 1 GiB in float32

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Kernel = Annotated[int, Field(ge=1, le=MAX_KERNEL)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]


def round8(width: float) -> int:
    """The nearest multiple of 8, halves upwards, and at least 8: the one rounding rule for derived widths.

    >>> round8(20.0), round8(2.5)
    (24, 8)
    """
    return max(8, int(width / 8 + 0.5) * 8)


class BlockSpec(Record):
    """One block.

    Kinds:
        conv: k x k convolution, batch norm, activation (stem, last convolution).
        inverted_residual: 1x1 expand convolution to ``hidden_width`` (absent when ``expand`` is false), k x k
            depthwise convolution, squeeze-excite if ``se_width`` > 0, linear 1x1 projection, shortcut if ``residual``.
        skip: the identity.
        widening_skip: 1x1 convolution, batch norm, ReLU.
        pooled_inverted_residual: 1x1 expand convolution, global average pool, 1x1 convolution without norm or
            bias, activation (MobileNetV3's last stage).
        head: global average pool and a linear layer with bias to ``out_width`` classes.

    Spatial sizes are not part of a block: ``out_size`` computes them. Widths, kernels and weights are bounded by
    `MAX_WIDTH`, `MAX_KERNEL` and `MAX_WEIGHTS`.
    """

    kind: BlockKind
    in_width: Width
    out_width: Width
    hidden_width: int = Field(default=0, ge=0, le=MAX_WIDTH)
    expand: bool = True
    kernel: Kernel = 1
    stride: int = Field(default=1, ge=1, le=2)
    se_width: int = Field(default=0, ge=0, le=MAX_WIDTH)
    se_gate: Gate = "hsigmoid"
    activation: Activation = "relu"
    residual: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        has_hidden = self.kind in ("inverted_residual", "pooled_inverted_residual")
        if has_hidden != (self.hidden_width > 0):
            raise ValueError(f"hidden_width must be {'positive' if has_hidden else '0'} for {self.kind}")
        if not self.expand and not (self.kind == "inverted_residual" and self.hidden_width == self.in_width):
            raise ValueError("expand may be false only in an inverted_residual with hidden_width = in_width")
        if self.se_width and self.kind != "inverted_residual":
            raise ValueError(f"se_width must be 0 for {self.kind}")
        same = self.in_width == self.out_width and self.stride == 1
        if self.residual and not (self.kind == "inverted_residual" and same):
            raise ValueError("residual needs an inverted_residual with in_width = out_width and stride 1")
        if self.kind == "skip" and not same:
            raise ValueError("skip needs in_width = out_width and stride 1")
        if self.kind not in ("conv", "inverted_residual") and (self.kernel, self.stride) != (1, 1):
            raise ValueError(f"kernel and stride must be 1 for {self.kind}")
        if (most := self._most_weights()) > MAX_WEIGHTS:
            raise ValueError(f"a layer may have at most {MAX_WEIGHTS:,} weights, here it has {most:,}")
        return self

    def _most_weights(self) -> int:
        """The weights of the layer that has the most."""
        if self.kind in ("inverted_residual", "pooled_inverted_residual"):
            return self.hidden_width * max(self.in_width, self.kernel**2, self.se_width, self.out_width)
        return self.in_width * self.out_width * self.kernel**2

    def out_size(self, in_size: int) -> int:
        """Height (= width) in pixels of the output for an input of ``in_size`` pixels: padding ``kernel // 2``."""
        if self.kind in ("pooled_inverted_residual", "head"):
            return 1
        return (in_size - 1) // self.stride + 1

    def describe(self) -> str:
        """A short label such as ``ir k5 s2 24->72->40 se24 hswish``."""
        short = {"inverted_residual": "ir", "pooled_inverted_residual": "ir_pool"}.get(self.kind, self.kind)
        widths = [self.in_width, *([self.hidden_width] if self.hidden_width else []), self.out_width]
        parts = [short]
        if self.kind in ("conv", "inverted_residual"):
            parts.append(f"k{self.kernel} s{self.stride}")
        parts.append("->".join(map(str, widths)))
        if self.se_width:
            parts.append(f"se{self.se_width}")
        if self.kind not in ("skip", "head"):
            parts.append(self.activation)
        return " ".join(parts)
