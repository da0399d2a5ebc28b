"""`Slot`: a position in the chain of blocks; `lay_out` makes the decisions and slots of a space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dmask_mobile.records.base import Record
from dmask_mobile.records.block import Activation, Gate
from dmask_mobile.records.choice import Decision, DecisionKind
from dmask_mobile.records.space_options import (
    BlockOptions,
    HeadOptions,
    InputOptions,
    LastOptions,
    ListedStage,
    StageOptions,
    StemOptions,
)


class Slot(Record):
    """A position in the chain of blocks; the integer fields are indices into ``SearchSpace.decisions``.

    ``expansion``: the decision about the hidden width, as a factor or as a width; None for a block without expansion.
    ``shortcut``: None if there is a shortcut whenever the widths are equal.
    """

    name: str
    kind: Literal["conv", "inverted_residual", "fused_inverted_residual", "head"]
    in_width: int
    out_width: int
    expansion: int | None = None
    kernel: int | None = None
    start_kernel: int | None = None
    squeeze_excite: int | None = None
    skip: int | None = None
    conv_kernel: int = 1
    stride: int = 1
    depthwise: bool = True
    shortcut: bool | None = None
    activation: Activation = "relu"
    se_gate: Gate = "hsigmoid"
    se_activation: Activation | None = None

    @property
    def inner(self) -> tuple[int, ...]:
        """The decisions that have no effect if the block is skipped."""
        found = (self.expansion, self.kernel, self.squeeze_excite, self.start_kernel)
        return tuple(index for index in found if index is not None)

    @property
    def decisions(self) -> tuple[int, ...]:
        """The distinct decisions that the block depends on, widths first."""
        found = (self.in_width, self.out_width, *self.inner, self.skip)
        return tuple(dict.fromkeys(index for index in found if index is not None))

    @property
    def is_dense(self) -> bool:
        """Whether the convolution with the searched kernel mixes channels."""
        return self.kind in ("conv", "fused_inverted_residual")


def lay_out(
    image: InputOptions,
    stem: StemOptions,
    stages: Sequence[StageOptions | ListedStage],
    last: LastOptions | None,
    head: HeadOptions | None,
    classes: int,
) -> tuple[tuple[Decision, ...], tuple[Slot, ...]]:
    """The decisions and the slots of a space with these parts."""
    plan = _Plan()
    plan.decide("resolution", "resolution", image.resolutions)
    plan.width = plan.decide("input.width", "width", (image.channels,))
    plan.add(
        "stem",
        "conv",
        plan.decide("stem.width", "width", stem.widths),
        conv_kernel=stem.kernel,
        stride=stem.stride,
        activation=stem.activation,
        shortcut=False,
    )
    for number, stage in enumerate(stages, start=1):
        plan.add_stage(f"stage{number}", stage)
    if last is not None:
        width = plan.decide("last.width", "width", last.widths)
        plan.add("last", "conv", width, activation=last.activation, shortcut=False)
    hidden: dict[str, object] = {}
    if head is not None:
        decision = plan.decide("head.hidden_width", "hidden_width", head.hidden_widths)
        hidden = {"expansion": decision, "activation": head.activation}
    plan.add("head", "head", plan.decide("classes", "width", (classes,)), **hidden)
    return tuple(plan.decisions), tuple(plan.slots)


class _Plan:
    """The decisions and slots so far; ``width``: the decision about the current width."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.slots: list[Slot] = []
        self.width = 0

    def decide(self, name: str, kind: DecisionKind, options: tuple[float, ...]) -> int:
        self.decisions.append(Decision(name=name, kind=kind, options=options))
        return len(self.decisions) - 1

    def add(self, name: str, kind: str, out_width: int, **fields: object) -> None:
        self.slots.append(
            Slot.model_validate({"name": name, "kind": kind, "in_width": self.width, "out_width": out_width, **fields})
        )
        self.width = out_width

    def add_stage(self, name: str, stage: StageOptions | ListedStage) -> None:
        if isinstance(stage, StageOptions):
            for number in range(stage.blocks):
                self._add_counted(name, f"{name}.block{number + 1}", stage, number)
            return
        for number, block in enumerate(stage.blocks):
            opens = number == 0 and bool(stage.widths)
            out = self.decide(f"{name}.width", "width", stage.widths) if opens else self.width
            self._add_listed(f"{name}.block{number + 1}", block, out)

    def _add_counted(self, stage_name: str, name: str, stage: StageOptions, number: int) -> None:
        out = self.width
        if number == 0 or not stage.tied:
            out = self.decide(f"{stage_name}.width" if stage.tied else f"{name}.width", "width", stage.widths)
        self.add(
            name,
            "inverted_residual",
            out,
            expansion=self.decide(f"{name}.expansion", "expansion", stage.expansions),
            kernel=self.decide(f"{name}.kernel", "kernel", stage.kernels),
            squeeze_excite=self.decide(f"{name}.squeeze_excite", "squeeze_excite", stage.squeeze_excite),
            skip=self.decide(f"{name}.skip", "skip", (0, 1)) if stage.skip and number else None,
            stride=stage.stride if number == 0 else 1,
            activation=stage.activation,
            se_gate=stage.se_gate,
        )

    def _add_listed(self, name: str, block: BlockOptions, out: int) -> None:
        def decide(what: str, kind: DecisionKind, options: tuple[float, ...], wanted: bool = True) -> int | None:
            return self.decide(f"{name}.{what}", kind, options) if wanted and options else None

        is_conv = block.kind == "conv"
        self.add(
            name,
            block.kind,
            out,
            expansion=decide("hidden_width", "hidden_width", block.hidden_widths),
            kernel=decide("kernel", "kernel", block.kernels),
            start_kernel=decide("start_kernel", "kernel", block.start_kernels),
            squeeze_excite=decide("squeeze_width", "squeeze_width", block.squeeze_widths, not is_conv),
            skip=decide("skip", "skip", (0, 1), block.skip),
            depthwise=block.kind != "inverted_residual" or bool(block.kernels),
            stride=block.stride,
            shortcut=block.shortcut,
            activation=block.activation,
            se_gate=block.se_gate,
            se_activation=block.se_activation,
        )
