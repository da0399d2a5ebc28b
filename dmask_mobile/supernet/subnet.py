"""A child with its slice of the supernet's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.choice import Choice
from dmask_mobile.supernet.supernet import MaskedSupernet


def extract_subnet(supernet: MaskedSupernet, choice: Choice) -> ChildNetwork:
    """The network of ``choice`` with its slice of the supernet's weights and running statistics.

    A slice takes the first channels of every axis and the centre of a depthwise kernel.
    """
    child = ChildNetwork(supernet.space.child(choice)).to(next(supernet.parameters()).dtype)
    shared = supernet.state_dict()
    own = child.state_dict()
    child.load_state_dict({name: _slice(shared[name], value.shape) for name, value in own.items()})
    return child


def _slice(tensor: Tensor, shape: torch.Size) -> Tensor:
    channels = tensor[tuple(slice(size) for size in shape[:2])]
    borders = [(full - size) // 2 for full, size in zip(channels.shape[2:], shape[2:], strict=True)]
    window = tuple(slice(border, border + size) for border, size in zip(borders, shape[2:], strict=True))
    return channels[:, :, window[0], window[1]] if window else channels
