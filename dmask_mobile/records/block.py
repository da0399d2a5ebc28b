"""`BlockSpec`: one block of a child network, with every number that its construction needs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dmask_mobile.records.base import Record

BlockKind = Literal[
    "conv",
    "inverted_residual",
    "fused_inverted_residual",
    "skip",
    "widening_skip",
    "pooled_inverted_residual",
    "head",
]
Activation = Literal["relu", "hswish", "relu6", "silu"]
Gate = Literal["sigmoid", "hsigmoid"]
Padding = Literal["symmetric", "same"]

RESIDUAL_KINDS: tuple[BlockKind, ...] = ("inverted_residual", "fused_inverted_residual")
"""The kinds of blocks between the stem and the last convolution that have a hidden width."""

# Networks for phones stay far below these limits. A larger value is a mistake, or would exhaust the reader's memory.
MAX_WIDTH = 65_536  # channels, classes; ImageNet-21k has 21,841 classes
MAX_KERNEL = 31  # the widest of published convolutional networks (RepLKNet)
MAX_SIZE = 8_192  # pixels of height and width
MAX_WEIGHTS = 2**28  # of one layer, 1 GiB in float32

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Kernel = Annotated[int, Field(ge=1, le=MAX_KERNEL)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
NormEpsilon = Annotated[float, Field(gt=0, le=1)]

NORM_EPS = 1e-5  # PyTorch's default


def round8(width: float) -> int:
    """The nearest multiple of 8, halves rounded up, and at least 8. All derived widths are rounded by this rule.

    >>> round8(20.0), round8(2.5)
    (24, 8)
    """
    return max(8, int(width / 8 + 0.5) * 8)


class BlockSpec(Record):
    """One block.

    Kinds:
        conv: k x k convolution, batch norm, activation (stem, last convolution), shortcut if ``residual``.
        inverted_residual: k x k depthwise convolution without activation if ``start_kernel`` > 0, 1x1 expand
            convolution to ``hidden_width`` (absent when ``expand`` is false), k x k depthwise convolution (absent when
            ``depthwise`` is false), squeeze-excite if ``se_width`` > 0, linear 1x1 projection, shortcut if
            ``residual``. The last depthwise convolution has the stride.
        fused_inverted_residual: k x k convolution to ``hidden_width`` in the place of the expand and the depthwise
            convolution (EfficientNet-EdgeTPU); the rest as above.
        skip: the identity.
        widening_skip: 1x1 convolution, batch norm, ReLU.
        pooled_inverted_residual: 1x1 expand convolution, global average pool, 1x1 convolution without norm or
            bias, activation (MobileNetV3's last stage).
        head: global average pool, a linear layer with bias and activation if ``hidden_width`` > 0, and a linear layer
            with bias to ``out_width`` classes.

    ``se_activation``: None for the activation of the block. ``padding``: ``same`` is TensorFlow's padding, which is
    asymmetric with stride 2. Spatial sizes are not part of a block: ``out_size`` computes them. Widths, kernels and
    weights are bounded by `MAX_WIDTH`, `MAX_KERNEL` and `MAX_WEIGHTS`. Fields of version 2 are written only if they
    differ from their defaults, so that digests of older networks do not change.
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
    start_kernel: int = Field(default=0, ge=0, le=MAX_KERNEL)
    depthwise: bool = True
    se_activation: Activation | None = None
    norm_eps: NormEpsilon = NORM_EPS
    padding: Padding = "symmetric"

    @model_serializer(mode="wrap")
    def _without_defaults_of_version_2(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        # No return type: with one, the JSON schema would say "any mapping".
        fields: dict[str, Any] = handler(self)
        return {
            name: value for name, value in fields.items() if name not in OF_VERSION_2 or value != OF_VERSION_2[name]
        }

    @property
    def version(self) -> int:
        """The oldest file version that can contain the block."""
        is_new = (
            self.kind == "fused_inverted_residual"
            or self.activation in ("relu6", "silu")
            or (self.kind == "head" and self.hidden_width > 0)
            or (self.kind == "conv" and self.residual)
            or any(getattr(self, name) != default for name, default in OF_VERSION_2.items())
        )
        return 2 if is_new else 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel % 2 == 0 or (self.start_kernel and self.start_kernel % 2 == 0):
            raise ValueError(f"kernel must be odd, got {self.kernel if self.kernel % 2 == 0 else self.start_kernel}")
        has_hidden = self.kind in (*RESIDUAL_KINDS, "pooled_inverted_residual")
        if has_hidden != (self.hidden_width > 0) and self.kind != "head":
            raise ValueError(f"hidden_width must be {'positive' if has_hidden else '0'} for {self.kind}")
        if not self.expand and not (self.kind == "inverted_residual" and self.hidden_width == self.in_width):
            raise ValueError("expand may be false only in an inverted_residual with hidden_width = in_width")
        if not self.expand and not self.depthwise:
            raise ValueError("expand and depthwise may not both be false")
        if self.se_width and self.kind not in RESIDUAL_KINDS:
            raise ValueError(f"se_width must be 0 for {self.kind}")
        if (self.start_kernel or not self.depthwise) and self.kind != "inverted_residual":
            raise ValueError(f"start_kernel must be 0 and depthwise true for {self.kind}")
        self._check_sizes()
        if (most := self._most_weights()) > MAX_WEIGHTS:
            raise ValueError(f"a layer may have at most {MAX_WEIGHTS:,} weights, this one has {most:,}")
        return self

    def _check_sizes(self) -> None:
        same = self.in_width == self.out_width and self.stride == 1
        if self.residual and not (self.kind in ("conv", *RESIDUAL_KINDS) and same):
            raise ValueError(
                "residual needs a convolution or an inverted residual with in_width = out_width and stride 1"
            )
        if self.kind == "skip" and not same:
            raise ValueError("skip needs in_width = out_width and stride 1")
        if self.kind not in ("conv", *RESIDUAL_KINDS) and (self.kernel, self.stride) != (1, 1):
            raise ValueError(f"kernel and stride must be 1 for {self.kind}")
        if not self.depthwise and (self.kernel, self.stride if not self.start_kernel else 1) != (1, 1):
            raise ValueError("kernel and stride must be 1 in a block without a convolution that uses them")

    def _most_weights(self) -> int:
        """The number of weights of the largest layer."""
        if self.hidden_width:
            into = self.in_width * (self.kernel**2 if self.kind == "fused_inverted_residual" else 1)
            return self.hidden_width * max(into, self.kernel**2, self.se_width, self.out_width)
        return self.in_width * self.out_width * self.kernel**2

    def out_size(self, in_size: int) -> int:
        """Height (= width) in pixels of the output for an input of ``in_size`` pixels; padding is ``kernel // 2``."""
        if self.kind in ("pooled_inverted_residual", "head"):
            return 1
        return (in_size - 1) // self.stride + 1

    def describe(self) -> str:
        """A short label such as ``ir k5 s2 24->72->40 se24 hswish``."""
        widths = [self.in_width, *([self.hidden_width] if self.hidden_width else []), self.out_width]
        parts = [SHORT_NAMES.get(self.kind, self.kind)]
        if self.start_kernel:
            parts.append(f"start k{self.start_kernel}")
        if self.kind in ("conv", *RESIDUAL_KINDS):
            parts.append(f"k{self.kernel} s{self.stride}" if self.depthwise else f"s{self.stride}")
        parts.append("->".join(map(str, widths)))
        if self.se_width:
            parts.append(f"se{self.se_width}")
        if self.kind not in ("skip", "head") or (self.kind == "head" and self.hidden_width):
            parts.append(self.activation)
        return " ".join(parts)


SHORT_NAMES: dict[BlockKind, str] = {
    "inverted_residual": "ir",
    "fused_inverted_residual": "fused_ir",
    "pooled_inverted_residual": "ir_pool",
}
OF_VERSION_2 = {
    name: BlockSpec.model_fields[name].default
    for name in ("start_kernel", "depthwise", "se_activation", "norm_eps", "padding")
}
"""The fields that were added in file version 2, with their defaults, which hold for version 1."""
