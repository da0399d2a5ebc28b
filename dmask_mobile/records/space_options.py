"""The options of the parts of a search space, as a user writes them in YAML."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from dmask_mobile.records.base import Record
from dmask_mobile.records.block import Activation, Gate, Kernel, Size, Width
from dmask_mobile.records.child import MAX_BLOCKS

MIN_CROP = 0.1
MAX_OPTIONS = 100  # of one decision

Widths = Annotated[tuple[Width, ...], Field(max_length=MAX_OPTIONS)]
Expansion = Annotated[float, Field(gt=0, le=100)]
SqueezeWidth = Annotated[int, Field(ge=0, le=65_536)]
OddKernels = Annotated[tuple[Literal[1, 3, 5, 7], ...], Field(max_length=MAX_OPTIONS)]


def _check_rising(options: tuple[float, ...]) -> None:
    if any(low >= high for low, high in itertools.pairwise(options)):
        raise ValueError("options must be strictly increasing")


class _Options(Record):
    @field_validator("*", mode="after")
    @classmethod
    def _check_lists(cls, value: object) -> object:
        if isinstance(value, tuple) and all(isinstance(option, int | float) for option in value):
            if not value:
                raise ValueError("an option list must name at least one option")
            _check_rising(value)
        return value


class InputOptions(Record):
    """Channels and the resolutions (pixels) of the input image.

    ``mean``, ``std``: for each channel, for pixels in 0..1: the normalization with which imported weights were trained.
    The default is the normalization of the data. ``crop``: the share of the shorter side that the central square of an
    image keeps, for weights that were evaluated in this way (version 2).
    """

    channels: Width = 3
    resolutions: Annotated[tuple[Size, ...], Field(max_length=MAX_OPTIONS)]
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    crop: float = Field(default=1.0, ge=MIN_CROP, le=1)

    @field_validator("resolutions", mode="after")
    @classmethod
    def _check_resolutions(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("an option list must name at least one option")
        _check_rising(value)
        return value

    @model_validator(mode="after")
    def _check_normalization(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together")
        if self.mean is not None and self.std is not None and {len(self.mean), len(self.std)} != {self.channels}:
            raise ValueError(f"mean and std need a number for each of {self.channels} channels")
        return self


class StemOptions(_Options):
    """The first convolution."""

    widths: Widths
    kernel: Kernel = 3
    stride: Literal[1, 2] = 2
    activation: Activation = "hswish"


class StageOptions(_Options):
    """Inverted residuals with the same options; ``stride`` applies to the first of them.

    ``tied``: one width for the whole stage, otherwise one for each block. ``skip``: the blocks after the first may be
    left out (only if the widths are tied).
    """

    blocks: int = Field(ge=1, le=MAX_BLOCKS)
    widths: Widths
    stride: Literal[1, 2] = 1
    expansions: Annotated[tuple[Expansion, ...], Field(max_length=MAX_OPTIONS)]
    kernels: tuple[Literal[3, 5], ...] = (3,)
    squeeze_excite: tuple[bool, ...] = (False,)
    se_gate: Gate = "hsigmoid"
    activation: Activation = "relu"
    skip: bool = False
    tied: bool = True

    @model_validator(mode="after")
    def _check_skip(self) -> Self:
        if self.skip and not self.tied:
            raise ValueError("skip needs tied widths: a skipped block cannot change the width")
        return self


class BlockOptions(Record):
    """One block with its own options (version 2).

    ``hidden_widths``: empty for a block without expansion and for a convolution. ``kernels``: the kernels of the
    depthwise convolution, or of the only or the fused convolution; empty if there is none. ``start_kernels``: the
    kernels of a depthwise convolution before the expansion. ``squeeze_widths``: 0 means no squeeze-excite.
    ``shortcut``: the output width equals the input width, and the input is added to the output. ``skip``: the block may
    be left out (only with a shortcut).
    """

    kind: Literal["conv", "inverted_residual", "fused_inverted_residual"] = "inverted_residual"
    hidden_widths: Widths = ()
    kernels: OddKernels = (3,)
    start_kernels: OddKernels = ()
    stride: Literal[1, 2] = 1
    squeeze_widths: Annotated[tuple[SqueezeWidth, ...], Field(min_length=1, max_length=MAX_OPTIONS)] = (0,)
    se_gate: Gate = "sigmoid"
    se_activation: Activation | None = None
    activation: Activation = "relu"
    shortcut: bool = False
    skip: bool = False

    @field_validator("hidden_widths", "kernels", "start_kernels", "squeeze_widths", mode="after")
    @classmethod
    def _check_lists(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        _check_rising(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.skip and not self.shortcut:
            raise ValueError("skip needs a shortcut, which is what remains of a skipped block")
        if self.shortcut and self.stride != 1:
            raise ValueError("a shortcut needs stride 1")
        if self.kind == "conv" and (self.hidden_widths or self.start_kernels or self.squeeze_widths != (0,)):
            raise ValueError("a conv has no hidden_widths, start_kernels or squeeze_widths")
        if self.kind == "fused_inverted_residual" and (not self.hidden_widths or self.start_kernels):
            raise ValueError("a fused_inverted_residual needs hidden_widths, and has no start_kernels")
        if not self.kernels and not (self.kind == "inverted_residual" and self.hidden_widths):
            raise ValueError(f"a {self.kind} needs kernels; an inverted_residual may have hidden_widths instead")
        if not self.kernels and (self.stride if not self.start_kernels else 1) != 1:
            raise ValueError("stride 2 needs kernels or start_kernels")
        return self


class ListedStage(Record):
    """A stage that lists blocks with their own options; all have one output width (version 2).

    ``widths``: if empty, the stage keeps the width before it, and every block needs a shortcut. Otherwise the first
    block changes to the new width, and all other blocks have shortcuts.
    """

    blocks: Annotated[tuple[BlockOptions, ...], Field(min_length=1, max_length=MAX_BLOCKS)]
    widths: Widths = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_rising(self.widths)
        first = 1 if self.widths else 0
        if self.widths and self.blocks[0].shortcut:
            raise ValueError("the first block of a stage with widths changes the width, so it cannot have a shortcut")
        if not all(block.shortcut for block in self.blocks[first:]):
            raise ValueError("blocks that do not change the width need a shortcut")
        return self


class LastOptions(_Options):
    """The 1x1 convolution before the head."""

    widths: Widths
    activation: Activation = "hswish"


class HeadOptions(_Options):
    """The hidden layer of the head between the pooled features and the classifier (version 2)."""

    hidden_widths: Widths
    activation: Activation = "hswish"


class ImportedWeights(Record):
    """The file with trained weights of a space's widest child, next to the space file, and its SHA-256 (version 2)."""

    file: Annotated[str, Field(pattern=r"^[^/\\\x00]+\.safetensors$", max_length=255)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
