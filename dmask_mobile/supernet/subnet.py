"""A child with its slice of the supernet's weights."""

from __future__ import annotations

from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.choice import Choice
from dmask_mobile.supernet.slices import slice_of
from dmask_mobile.supernet.supernet import MaskedSupernet


def extract_subnet(supernet: MaskedSupernet, choice: Choice) -> ChildNetwork:
    """The network of ``choice`` with its slice of the supernet's weights and running statistics.

    A slice takes the first channels of every axis and the centre of a depthwise kernel.
    """
    child = ChildNetwork(supernet.space.child(choice)).to(next(supernet.parameters()).dtype)
    shared = supernet.state_dict()
    own = child.state_dict()
    child.load_state_dict({name: slice_of(shared[name], value.shape) for name, value in own.items()})
    return child
