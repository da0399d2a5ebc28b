"""Channels in the order of their importance: masks keep the first ones.

Layers that share channels (a whole residual stage; a block's hidden layers) are permuted together, so that the network
computes what it did. The decisions of the space say which layers share them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dmask_mobile.importing.network import State
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.setting_names import Importance
from dmask_mobile.records.space import SearchSpace, Slot

Group = tuple[str, int]
"""``width`` with the decision that layers share, ``hidden`` or ``squeeze`` with the number of their block."""

NORMS = ("weight", "bias", "running_mean", "running_var")


class Axis(NamedTuple):
    """An axis of a tensor along which the channels of a group lie."""

    tensor: str
    axis: int
    group: Group


def sorted_by_importance(
    space: SearchSpace, state: State, gradients: Mapping[str, Tensor] | None, how: Importance
) -> State:
    """The same network with every group of channels in falling order of importance.

    Args:
        space: the space whose widest child the network is.
        state: its weights.
        gradients: of the loss, by parameter; for ``taylor``.
        how: ``l1``: of the weights that read a channel; ``bn``: the scale of the norms that write it; ``taylor``: how
            much the loss would change, to first order, if those norms wrote nothing. Channels that no norm writes go
            by ``l1``.
    """
    by_group: dict[Group, list[Axis]] = defaultdict(list)
    for axis in axes_of(space):
        by_group[axis.group].append(axis)
    found = dict(state)
    for axes in by_group.values():
        scores = None
        if how == "bn":
            scores = _by_norms(axes, state)
        elif how == "taylor":
            scores = _by_taylor(axes, state, gradients or {})
        order = torch.argsort(_by_l1(axes, state) if scores is None else scores, descending=True, stable=True)
        for axis in axes:
            found[axis.tensor] = found[axis.tensor].index_select(axis.axis, order)
    return found


def axes_of(space: SearchSpace) -> Iterator[Axis]:
    """Every axis along which channels lie whose order is free: not those of the image and of the classes."""
    image, classes = space.slots[0].in_width, space.slots[-1].out_width
    for number, slot in enumerate(space.slots):
        block = space.block(slot, space.largest())
        for axis in _axes_of_block(number, slot, block):
            if axis.group not in (("width", image), ("width", classes)):
                yield axis


def _axes_of_block(number: int, slot: Slot, block: BlockSpec) -> Iterator[Axis]:
    ins, outs = ("width", slot.in_width), ("width", slot.out_width)
    hidden = ("hidden", number) if slot.expansion is not None else ins
    name = f"blocks.{number}"
    if slot.kind == "conv":
        yield from _layer(name, outs, ins)
        return
    if slot.kind == "head":
        if slot.expansion is not None:
            yield from (Axis(f"{name}.hidden.weight", 0, hidden), Axis(f"{name}.hidden.weight", 1, ins))
            yield Axis(f"{name}.hidden.bias", 0, hidden)
        yield Axis(f"{name}.linear.weight", 1, hidden)
        return
    if block.start_kernel:
        yield from _layer(f"{name}.start", ins)
    if block.expand:
        yield from _layer(f"{name}.expand", hidden, ins)
    if block.depthwise and slot.kind == "inverted_residual":
        yield from _layer(f"{name}.depthwise", hidden)
    if block.se_width:
        squeeze = ("squeeze", number)
        yield from (Axis(f"{name}.se.squeeze.weight", 0, squeeze), Axis(f"{name}.se.squeeze.weight", 1, hidden))
        yield from (Axis(f"{name}.se.excite.weight", 0, hidden), Axis(f"{name}.se.excite.weight", 1, squeeze))
        yield from (Axis(f"{name}.se.squeeze.bias", 0, squeeze), Axis(f"{name}.se.excite.bias", 0, hidden))
    yield from _layer(f"{name}.project", outs, hidden)


def _layer(name: str, outs: Group, ins: Group | None = None) -> Iterator[Axis]:
    """The axes of a convolution and its norm; ``ins``: None for a depthwise one."""
    yield Axis(f"{name}.conv.weight", 0, outs)
    if ins is not None:
        yield Axis(f"{name}.conv.weight", 1, ins)
    yield from (Axis(f"{name}.norm.{part}", 0, outs) for part in NORMS)


def _by_l1(axes: list[Axis], state: State) -> Tensor:
    """The mean magnitude of the weights that read each channel, each layer counting the same."""
    return _total([state[a.tensor].abs().transpose(0, 1).flatten(1).mean(1) for a in axes if a.axis == 1])


def _by_norms(axes: list[Axis], state: State) -> Tensor | None:
    """The scales of the norms that write each channel; None where no norm does."""
    return _total([state[name].abs() for name in _norms(axes)]) if _norms(axes) else None


def _by_taylor(axes: list[Axis], state: State, gradients: Mapping[str, Tensor]) -> Tensor | None:
    """How much the loss changes, to first order, without each channel; None where no norm writes it."""
    found = []
    for name in _norms(axes):
        bias = name.removesuffix("weight") + "bias"
        found.append((state[name] * gradients[name] + state[bias] * gradients[bias]).abs())
    return sum(found[1:], found[0]) if found else None


def _norms(axes: list[Axis]) -> list[str]:
    return [axis.tensor for axis in axes if axis.tensor.endswith("norm.weight")]


def _total(parts: list[Tensor]) -> Tensor:
    scaled = [part / part.mean().clamp_min(1e-30) for part in parts]
    return sum(scaled[1:], scaled[0])
