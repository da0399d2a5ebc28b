"""`SearchSpace`: the networks that a search chooses from, as a user writes them in YAML."""

from __future__ import annotations

import itertools
import math
import os
import random
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.block import (
    MAX_WEIGHTS,
    MAX_WIDTH,
    NORM_EPS,
    BlockSpec,
    NormEpsilon,
    Padding,
    Width,
    round8,
)
from dmask_mobile.records.child import MAX_BLOCKS, MAX_NAME, ChildSpec
from dmask_mobile.records.choice import Choice, Decision
from dmask_mobile.records.names import Line, Name, as_name
from dmask_mobile.records.slots import Slot as Slot
from dmask_mobile.records.slots import lay_out
from dmask_mobile.records.space_options import (
    HeadOptions,
    ImportedWeights,
    InputOptions,
    LastOptions,
    ListedStage,
    StageOptions,
    StemOptions,
)

SE_REDUCTION = 4  # squeeze width = round8(hidden width / 4), as in FBNetV2

MAX_COSTS = 20_000_000  # entries in all cost tensors of a space; fbnetv2_f has 53,488
MAX_SPACE_NAME = 200  # characters; the names of its children are longer


def _form_of_stage(stage: object) -> str:
    """``listed`` if a stage lists its blocks, ``counted`` if it gives only their number."""
    blocks = stage.get("blocks") if isinstance(stage, dict) else getattr(stage, "blocks", None)
    return "listed" if isinstance(blocks, list | tuple) else "counted"


Stage = Annotated[
    Annotated[StageOptions, Tag("counted")] | Annotated[ListedStage, Tag("listed")], Discriminator(_form_of_stage)
]


class SearchSpace(FileRecord):
    """All children of one supernet: stem, stages of inverted residuals, last convolution, head.

    Version 2 added stages that list their blocks, a ``last`` that may be absent, a hidden layer in the ``head``, one
    ``norm_eps`` and one ``padding`` for all blocks, the ``origin`` (the network that the space is based on) and the
    ``weights`` of that network. The new fields are written only if they are used, so that digests of older spaces do
    not change.
    """

    file_format: ClassVar[str] = "dmask-space"
    file_version: ClassVar[int] = 2
    oldest_version: ClassVar[int | None] = 1

    name: Name = Field(min_length=1, max_length=MAX_SPACE_NAME)
    classes: Width = 1000
    input: InputOptions
    stem: StemOptions
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=MAX_BLOCKS)
    last: LastOptions | None
    head: HeadOptions | None = None
    norm_eps: NormEpsilon = NORM_EPS
    padding: Padding = "symmetric"
    origin: Line = ""
    weights: ImportedWeights | None = None

    @model_serializer(mode="wrap")
    def _without_defaults_of_version_2(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        # No return type: with one, the JSON schema would say "any mapping".
        fields: dict[str, Any] = handler(self)
        if self.input.mean is None:
            fields["input"] = {name: fields["input"][name] for name in fields["input"] if name not in ("mean", "std")}
        if self.input.crop == 1:
            fields["input"] = {name: value for name, value in fields["input"].items() if name != "crop"}
        return {
            name: value for name, value in fields.items() if name not in OF_VERSION_2 or value != OF_VERSION_2[name]
        }

    @property
    def written_version(self) -> int:
        """The oldest version that can contain the space, so that digests of older spaces do not change."""
        is_new = (
            any(getattr(self, name) != default for name, default in OF_VERSION_2.items())
            or self.last is None
            or self.input.mean is not None
            or self.input.crop != 1
            or any(isinstance(stage, ListedStage) for stage in self.stages)
            or any(block.version > 1 for block in self.child(self.largest()).blocks)
        )
        return 2 if is_new else 1

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        """Refuses a space whose children would be refused, or whose cost tensors would not fit into memory."""
        num_blocks = 3 + sum(
            stage.blocks if isinstance(stage, StageOptions) else len(stage.blocks) for stage in self.stages
        )
        if num_blocks > MAX_BLOCKS:
            raise ValueError(f"a network may have at most {MAX_BLOCKS:,} blocks, this space has {num_blocks:,}")
        costs = len(self.input.resolutions) * sum(
            math.prod(len(self.decisions[decision].options) for decision in slot.decisions) for slot in self.slots
        )
        if costs > MAX_COSTS:
            raise ValueError(
                f"its blocks may have at most {MAX_COSTS:,} combinations of options, this space has"
                f" {costs:,}: give fewer options"
            )
        for slot in self.slots:
            self._check_widest(slot)
        return self

    def _check_widest(self, slot: Slot) -> None:
        """Checks that the widest block of a slot is within the limits of a block."""
        in_width, out_width = (self.decisions[decision].options[-1] for decision in (slot.in_width, slot.out_width))
        hidden = 0.0
        if slot.expansion is not None:
            expansion = self.decisions[slot.expansion]
            hidden = expansion.options[-1] * (in_width if expansion.kind == "expansion" else 1)
        kernel = slot.conv_kernel if slot.kernel is None else self.decisions[slot.kernel].options[-1]
        weights = hidden * max(in_width, out_width, hidden / SE_REDUCTION) if hidden else in_width * out_width
        if hidden > MAX_WIDTH - 8 or weights * (kernel**2 if slot.is_dense else 1) > MAX_WEIGHTS:
            raise ValueError(
                f"{slot.name}: its widest block has a hidden width of {hidden:,.0f} and a layer of {weights:,.0f}"
                f" weights; at most {MAX_WIDTH:,} and {MAX_WEIGHTS:,} are allowed"
            )

    @cached_property
    def _layout(self) -> tuple[tuple[Decision, ...], tuple[Slot, ...]]:
        return lay_out(self.input, self.stem, self.stages, self.last, self.head, self.classes)

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
        """The largest resolution in pixels, which is that of the supernet's input."""
        return self.input.resolutions[-1]

    def with_classes(self, classes: int) -> SearchSpace:
        """The same space for another number of classes."""
        return SearchSpace.model_validate({**self.model_dump(), "classes": classes})

    def block(self, slot: Slot, choice: Choice) -> BlockSpec:
        """The block that ``choice`` puts into ``slot``."""

        def value(decision: int | None) -> float:
            return 0.0 if decision is None else self.decisions[decision].options[choice[decision]]

        in_width, out_width = int(value(slot.in_width)), int(value(slot.out_width))
        if value(slot.skip):
            return BlockSpec(kind="skip", in_width=in_width, out_width=out_width)
        if slot.kind == "head":
            fields: dict[str, Any] = {}
            if slot.expansion is not None:
                fields = {"hidden_width": int(value(slot.expansion)), "activation": slot.activation}
            return BlockSpec(kind="head", in_width=in_width, out_width=out_width, **fields)
        shortcut = in_width == out_width and slot.stride == 1 if slot.shortcut is None else slot.shortcut
        fields = {
            "kind": slot.kind,
            "in_width": in_width,
            "out_width": out_width,
            "kernel": slot.conv_kernel if slot.kernel is None else int(value(slot.kernel)),
            "stride": slot.stride,
            "activation": slot.activation,
            "norm_eps": self.norm_eps,
            "padding": self.padding,
            "residual": shortcut,
        }
        if slot.kind == "conv":
            return BlockSpec(**fields)
        hidden_width = self.hidden_width(slot, in_width, value(slot.expansion))
        return BlockSpec(
            **fields,
            hidden_width=hidden_width,
            expand=slot.expansion is not None,
            depthwise=slot.depthwise,
            start_kernel=int(value(slot.start_kernel)),
            se_width=self.squeeze_width(slot, hidden_width, value(slot.squeeze_excite)),
            se_gate=slot.se_gate,
            se_activation=slot.se_activation,
        )

    def hidden_width(self, slot: Slot, in_width: int, option: float) -> int:
        """The hidden width of a slot's block for an option of its expansion."""
        if slot.expansion is None:
            return in_width
        return round8(in_width * option) if self.decisions[slot.expansion].kind == "expansion" else int(option)

    def squeeze_width(self, slot: Slot, hidden_width: int, option: float) -> int:
        """The squeeze width of a slot's block for an option of its squeeze-excite; 0 for none."""
        if slot.squeeze_excite is not None and self.decisions[slot.squeeze_excite].kind == "squeeze_width":
            return int(option)
        return round8(hidden_width / SE_REDUCTION) if option else 0

    def child(self, choice: Choice, name: str = "") -> ChildSpec:
        """The network that ``choice`` stands for."""
        return ChildSpec(
            name=as_name(name or f"{self.name}-child", MAX_NAME),
            resolution=self.decisions[0].width(choice[0]),
            classes=self.classes,
            blocks=tuple(self.block(slot, choice) for slot in self.slots),
        )

    def smallest(self) -> Choice:
        """The first option of each decision, with every block skipped that can be skipped."""
        return Choice(indices=tuple(len(d.options) - 1 if d.kind == "skip" else 0 for d in self.decisions))

    def largest(self) -> Choice:
        """The last option of each decision, with no block skipped."""
        return Choice(indices=tuple(0 if d.kind == "skip" else len(d.options) - 1 for d in self.decisions))

    def sample(self, generator: random.Random) -> Choice:
        """A random choice; all options of a decision are equally likely."""
        return Choice(indices=tuple(generator.randrange(len(d.options)) for d in self.decisions))

    def num_children(self) -> int:
        """The number of different networks.

        The options of a skipped block do not count, and two expansions that round to the same hidden width count once.
        The count goes along the chain: for each slot, the number of networks that end at each of its widths.
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
        """The different blocks that a slot can have between two widths (given as option indices)."""
        indices = list(self.largest().indices)
        indices[slot.in_width], indices[slot.out_width] = in_width, out_width
        inside = [d for d in slot.decisions if d not in (slot.in_width, slot.out_width)]
        blocks = set()
        for options in itertools.product(*(range(len(self.decisions[d].options)) for d in inside)):
            for decision, option in zip(inside, options, strict=True):
                indices[decision] = option
            blocks.add(self.block(slot, Choice(indices=tuple(indices))))
        return blocks


OF_VERSION_2 = {
    name: SearchSpace.model_fields[name].default for name in ("head", "norm_eps", "padding", "origin", "weights")
}
"""The fields that were added in file version 2, with their defaults, which hold for version 1."""


def shipped_spaces() -> tuple[str, ...]:
    """The names of the spaces that come with the package."""
    folder = resources.files("dmask_mobile.spaces")
    return tuple(sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_space(name_or_path: str | os.PathLike[str]) -> SearchSpace:
    """The shipped space of this name, or the space in the YAML or JSON file at this path.

    >>> dm.load_space("demo").input.resolutions
    (32,)

    Raises:
        DmaskError: for an unknown name, an absent file, or a file that breaks a rule.
    """
    name_or_path = os.fspath(name_or_path)
    if name_or_path in shipped_spaces():
        with resources.as_file(resources.files("dmask_mobile.spaces") / f"{name_or_path}.yaml") as path:
            return SearchSpace.read(path)
    path = Path(name_or_path)
    if not path.exists():
        raise DmaskError(
            f"no space '{name_or_path}'",
            f"give the path of a YAML file or a shipped space: {', '.join(shipped_spaces())}",
        )
    return SearchSpace.read(path)
