"""Finds the first wrong block of a failing artifact."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dmask_mobile.nets.build import ChildNetwork
from export.deployable import Deployable
from export.formats.protocols import ExportedModel
from export.verification.numerics import relative_error


def first_bad_block(model: ExportedModel, reference: Deployable, image: Tensor, limit: float) -> str:
    """A sentence that names the first block whose output differs by more than ``limit`` of its range.

    The PyTorch output of every block is searched among the tensors inside the artifact. Of the tensors with the same
    shape after the tensor of the previous block, the nearest is used.

    Args:
        model: the artifact.
        reference: the network in PyTorch, as deployed.
        image: one input image (1, ...) of the model.
        limit: the largest difference as a share of the range of the block's output.
    """
    tensors = model.intermediates(image)
    if tensors is None:
        return "the format does not show its intermediate results; bisect another format of the same child"
    inside = [tensor.float() for tensor in tensors]
    place = 0
    for number, expected in enumerate(_block_outputs(reference, image)):
        found = {
            at: relative_error(expected, candidate)
            for at in range(place, len(inside))
            if (candidate := _in_shape(inside[at], expected)) is not None
        }
        if not found:
            return f"no tensor inside the artifact has the shape of block {number}'s output {tuple(expected.shape)}"
        best = min(found, key=found.__getitem__)
        if found[best] > limit:
            kind = type(_blocks(reference)[number]).__name__
            return f"first block beyond {limit:g} of its range: block {number} ({kind}), {found[best]:.2g}"
        place = best
    return f"no block's output is beyond {limit:g} of its range; the problem is after the last block"


def _blocks(reference: Deployable) -> nn.ModuleList:
    network = reference.network
    assert isinstance(network, ChildNetwork)
    return network.blocks


@torch.no_grad()
def _block_outputs(reference: Deployable, image: Tensor) -> Iterator[Tensor]:
    outputs: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for block in _blocks(reference)
    ]
    try:
        reference(image)
    finally:
        for hook in hooks:
            hook.remove()
    yield from outputs


def _in_shape(candidate: Tensor, expected: Tensor) -> Tensor | None:
    """The candidate in the shape of ``expected`` (N, C, ...), also from (N, ..., C) and without its batch."""
    if candidate.dim() == expected.dim() - 1:
        candidate = candidate[None]
    if candidate.shape == expected.shape:
        return candidate
    if candidate.dim() == 4 == expected.dim():
        moved = candidate.permute(0, 3, 1, 2)
        return moved if moved.shape == expected.shape else None
    return None
