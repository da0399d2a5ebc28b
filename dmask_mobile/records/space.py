"""`SearchSpace`: the networks that a search chooses from, as a user writes them in YAML."""

from __future__ import annotations

import itertools
import math
import os
import random
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.block import MAX_WEIGHTS, MAX_WIDTH, Activation, BlockSpec, Gate, Kernel, Size, Width, round8
from dmask_mobile.records.child import MAX_BLOCKS, MAX_NAME, ChildSpec
from dmask_mobile.records.choice import Choice, Decision, DecisionKind
from dmask_mobile.records.names import Name, as_name

SE_REDUCTION = 4  # squeeze width = round8(hidden width / 4), as in FBNetV2

MAX_OPTIONS = 100  # of one decision
MAX_COSTS = 20_000_000  # entries of the cost tensors of a space; fbnetv2_f has 53,488
MAX_SPACE_NAME = 200  # characters; the names of its children are longer

Widths = Annotated[tuple[Width, ...], Field(max_length=MAX_OPTIONS)]
Expansion = Annotated[float, Field(gt=0, le=100)]


def _check_rising(options: tuple[float, ...]) -> None:
    if not options:
        raise ValueError("an option list must name at least one option")
    if any(low >= high for low, high in itertools.pairwise(options)):
        raise ValueError("options must be strictly increasing")


class _Options(Record):
    @field_validator("*", mode="after")
    @classmethod
    def _check_lists(cls, value: object) -> object:
        if isinstance(value, tuple):
            _check_rising(value)
        return value


class InputOptions(_Options):
    """Channels and the resolutions (pixels) of the input image."""

    channels: Width = 3
    resolutions: Annotated[tuple[Size, ...], Field(max_length=MAX_OPTIONS)]


class StemOptions(_Options):
    """The first convolution."""

    widths: Widths
    kernel: Kernel = 3
    stride: Literal[1, 2] = 2
    activation: Activation = "hswish"


class StageOptions(_Options):
    """Inverted residuals with the same options; ``stride`` applies to the first of them.

    ``tied``: one width for the whole stage, else one for each block. ``skip``: the blocks after the first may be
    left out (tied stages only).
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


class LastOptions(_Options):
    """The 1x1 convolution before the head."""

    widths: Widths
    activation: Activation = "hswish"


class Slot(Record):
    """A position in the chain of blocks; the integer fields are indices into ``SearchSpace.decisions``."""

    name: str
    kind: Literal["conv", "inverted_residual", "head"]
    in_width: int
    out_width: int
    expansion: int | None = None
    kernel: int | None = None
    squeeze_excite: int | None = None
    skip: int | None = None
    conv_kernel: int = 1
    stride: int = 1
    activation: Activation = "relu"
    se_gate: Gate = "hsigmoid"

    @property
    def decisions(self) -> tuple[int, ...]:
        """The distinct decisions that the block depends on, widths first."""
        found = (self.in_width, self.out_width, self.expansion, self.kernel, self.squeeze_excite, self.skip)
        return tuple(dict.fromkeys(index for index in found if index is not None))


class SearchSpace(FileRecord):
    """All children of one supernet: stem, stages of inverted residuals, last convolution, head."""

    file_format: ClassVar[str] = "dmask-space"

    name: Name = Field(min_length=1, max_length=MAX_SPACE_NAME)
    classes: Width = 1000
    input: InputOptions
    stem: StemOptions
    stages: tuple[StageOptions, ...] = Field(min_length=1, max_length=MAX_BLOCKS)
    last: LastOptions

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        """A space whose children would be refused, or whose costs fit no memory, is refused at once."""
        num_blocks = 3 + sum(stage.blocks for stage in self.stages)
        if num_blocks > MAX_BLOCKS:
            raise ValueError(f"a network may have at most {MAX_BLOCKS:,} blocks, here {num_blocks:,}")
        costs = len(self.input.resolutions) * sum(
            math.prod(len(self.decisions[decision].options) for decision in slot.decisions) for slot in self.slots
        )
        if costs > MAX_COSTS:
            raise ValueError(
                f"its blocks may have at most {MAX_COSTS:,} combinations of options, here {costs:,}: give fewer options"
            )
        for slot in self.slots:
            self._check_widest(slot)
        return self

    def _check_widest(self, slot: Slot) -> None:
        """Checks that the widest block of a slot is one."""
        in_width, out_width = (self.decisions[decision].options[-1] for decision in (slot.in_width, slot.out_width))
        hidden = 0 if slot.expansion is None else in_width * self.decisions[slot.expansion].options[-1]
        weights = hidden * max(in_width, out_width, hidden / SE_REDUCTION) if hidden else in_width * out_width
        if hidden > MAX_WIDTH - 8 or weights * slot.conv_kernel**2 > MAX_WEIGHTS:
            raise ValueError(
                f"{slot.name}: its widest block has a hidden width of {hidden:,.0f} and a layer of {weights:,.0f}"
                f" weights; at most {MAX_WIDTH:,} and {MAX_WEIGHTS:,} are allowed"
            )

    @cached_property
    def _layout(self) -> tuple[tuple[Decision, ...], tuple[Slot, ...]]:
        return _lay_out(self)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Every gate, in the order in which `Choice` holds them; the first is the resolution."""
        return self._layout[0]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every block position, from the stem to the head."""
        return self._layout[1]

    @property
    def resolution(self) -> int:
        """The largest resolution in pixels: that of the supernet's input."""
        return self.input.resolutions[-1]

    def with_classes(self, classes: int) -> SearchSpace:
        """The same space for another number of classes."""
        return SearchSpace.model_validate({**self.model_dump(), "classes": classes})

    def block(self, slot: Slot, choice: Choice) -> BlockSpec:
        """The block that ``choice`` puts into ``slot``."""

        def value(decision: int | None) -> float:
            return 0.0 if decision is None else self.decisions[decision].options[choice[decision]]

        in_width, out_width = int(value(slot.in_width)), int(value(slot.out_width))
        if slot.kind == "head":
            return BlockSpec(kind="head", in_width=in_width, out_width=out_width)
        if slot.kind == "conv":
            return BlockSpec(
                kind="conv",
                in_width=in_width,
                out_width=out_width,
                kernel=slot.conv_kernel,
                stride=slot.stride,
                activation=slot.activation,
            )
        if value(slot.skip):
            return BlockSpec(kind="skip", in_width=in_width, out_width=out_width)
        hidden_width = round8(in_width * value(slot.expansion))
        return BlockSpec(
            kind="inverted_residual",
            in_width=in_width,
            hidden_width=hidden_width,
            out_width=out_width,
            kernel=int(value(slot.kernel)),
            stride=slot.stride,
            se_width=round8(hidden_width / SE_REDUCTION) if value(slot.squeeze_excite) else 0,
            se_gate=slot.se_gate,
            activation=slot.activation,
            residual=in_width == out_width and slot.stride == 1,
        )

    def child(self, choice: Choice, name: str = "") -> ChildSpec:
        """The network that ``choice`` names."""
        return ChildSpec(
            name=as_name(name or f"{self.name}-child", MAX_NAME),
            resolution=self.decisions[0].width(choice[0]),
            classes=self.classes,
            blocks=tuple(self.block(slot, choice) for slot in self.slots),
        )

    def smallest(self) -> Choice:
        """The first option everywhere, every block skipped that may be."""
        return Choice(indices=tuple(len(d.options) - 1 if d.kind == "skip" else 0 for d in self.decisions))

    def largest(self) -> Choice:
        """The last option everywhere, no block skipped."""
        return Choice(indices=tuple(0 if d.kind == "skip" else len(d.options) - 1 for d in self.decisions))

    def sample(self, generator: random.Random) -> Choice:
        """A choice with every option equally likely."""
        return Choice(indices=tuple(generator.randrange(len(d.options)) for d in self.decisions))

    def num_children(self) -> int:
        """The number of different networks.

        What a skipped block would have been does not count, nor do two expansions that round to the same hidden
        width. Counted along the chain: networks that end at each width of a slot.
        """
        ending = {0: 1}
        for slot in self.slots:
            tied = slot.in_width == slot.out_width
            reached: dict[int, int] = dict.fromkeys(range(len(self.decisions[slot.out_width].options)), 0)
            for i, count in ending.items():
                for j in (i,) if tied else reached:
                    reached[j] += count * len(self._variants(slot, i, j))
            ending = reached
        return sum(ending.values()) * len(self.input.resolutions)

    def _variants(self, slot: Slot, in_width: int, out_width: int) -> set[BlockSpec]:
        """The different blocks that a slot can have between two widths (option indices)."""
        indices = list(self.largest().indices)
        indices[slot.in_width], indices[slot.out_width] = in_width, out_width
        inside = [d for d in slot.decisions if d not in (slot.in_width, slot.out_width)]
        blocks = set()
        for options in itertools.product(*(range(len(self.decisions[d].options)) for d in inside)):
            for decision, option in zip(inside, options, strict=True):
                indices[decision] = option
            blocks.add(self.block(slot, Choice(indices=tuple(indices))))
        return blocks


def _lay_out(space: SearchSpace) -> tuple[tuple[Decision, ...], tuple[Slot, ...]]:
    decisions: list[Decision] = []
    slots: list[Slot] = []

    def decide(name: str, kind: DecisionKind, options: tuple[float, ...]) -> int:
        decisions.append(Decision(name=name, kind=kind, options=options))
        return len(decisions) - 1

    decide("resolution", "resolution", space.input.resolutions)
    width = decide("input.width", "width", (space.input.channels,))

    stem = decide("stem.width", "width", space.stem.widths)
    slots.append(
        Slot(
            name="stem",
            kind="conv",
            in_width=width,
            out_width=stem,
            conv_kernel=space.stem.kernel,
            stride=space.stem.stride,
            activation=space.stem.activation,
        )
    )
    width = stem
    for stage_index, stage in enumerate(space.stages, start=1):
        for block_index in range(stage.blocks):
            name = f"stage{stage_index}.block{block_index + 1}"
            out = width
            if block_index == 0 or not stage.tied:
                out = decide(f"stage{stage_index}.width" if stage.tied else f"{name}.width", "width", stage.widths)
            slots.append(
                Slot(
                    name=name,
                    kind="inverted_residual",
                    in_width=width,
                    out_width=out,
                    expansion=decide(f"{name}.expansion", "expansion", stage.expansions),
                    kernel=decide(f"{name}.kernel", "kernel", stage.kernels),
                    squeeze_excite=decide(f"{name}.squeeze_excite", "squeeze_excite", stage.squeeze_excite),
                    skip=decide(f"{name}.skip", "skip", (0, 1)) if stage.skip and block_index else None,
                    stride=stage.stride if block_index == 0 else 1,
                    activation=stage.activation,
                    se_gate=stage.se_gate,
                )
            )
            width = out
    last = decide("last.width", "width", space.last.widths)
    slots.append(Slot(name="last", kind="conv", in_width=width, out_width=last, activation=space.last.activation))
    classes = decide("classes", "width", (space.classes,))
    slots.append(Slot(name="head", kind="head", in_width=last, out_width=classes))
    return tuple(decisions), tuple(slots)


def shipped_spaces() -> tuple[str, ...]:
    """The names of the spaces that come with the package."""
    folder = resources.files("dmask_mobile.spaces")
    return tuple(sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_space(name_or_path: str | os.PathLike[str]) -> SearchSpace:
    """The space that ships under this name, or that in the YAML or JSON file at this path.

    >>> dm.load_space("demo").input.resolutions
    (32,)

    Raises:
        DmaskError: for an unknown name, an absent file, and a file that breaks a rule.
    """
    name_or_path = os.fspath(name_or_path)
    if name_or_path in shipped_spaces():
        with resources.as_file(resources.files("dmask_mobile.spaces") / f"{name_or_path}.yaml") as path:
            return SearchSpace.read(path)
    path = Path(name_or_path)
    if not path.exists():
        raise DmaskError(
            f"no space '{name_or_path}'",
            f"give the path of a YAML file or one of the spaces that ship: {', '.join(shipped_spaces())}",
        )
    return SearchSpace.read(path)
