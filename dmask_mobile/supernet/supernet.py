"""`MaskedSupernet`: every child of a space in the weights of the widest one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dmask_mobile.nets.blocks import build_block, initialize
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.supernet.gates import Gates
from dmask_mobile.supernet.layers import MASKED, MaskedConv, MaskedHead, MaskedInvertedResidual
from dmask_mobile.supernet.resolution import subsample
from dmask_mobile.supernet.slices import slice_of

MAX_STRUCTURES = 4096  # cached blocks without weights


class SharedBlock(NamedTuple):
    """A block of a child, whose tensors are slices of the supernet's."""

    spec: BlockSpec
    module: nn.Module
    slices: dict[str, Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """The block's output: a feature map, or the class scores."""
        y: Tensor = functional_call(self.module, self.slices, (x,))
        return y


class MaskedSupernet(nn.Module):
    """A network with shared weights for all children of ``space``.

    ``forward(x, gates)`` computes the mixture of children that the gates describe. With one-hot gates it is exactly the
    child that `extract_subnet` returns (FBNetV2, sections 3.1 and 3.2). ``forward(x, choice)`` computes only that
    child, with its slice of the shared weights, and takes only as long as the child. The modules have the same names as
    those of a child.

    Args:
        space: the search space; the input is at its largest resolution.
        generator: source of the initial weights (default: seed 0).
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.space = space
        self._structures: dict[tuple[int, BlockSpec], nn.Module] = {}
        self.blocks = nn.ModuleList(MASKED[slot.kind](space, slot) for slot in space.slots)
        initialize(self, generator or torch.Generator().manual_seed(0))

    def forward(self, x_NCHW: Tensor, gates: Gates | Choice) -> Tensor:
        """Class scores (N, classes) of images at the largest resolution, from a mixture of children or from one child.

        Every resolution with a positive gate needs one pass through the trunk. Each is pooled over its own positions.
        The pooled features are mixed; if the head has a hidden layer, the scores are mixed instead.
        """
        if isinstance(gates, Choice):
            return self._child_scores(x_NCHW, gates)
        head = self.blocks[-1]
        assert isinstance(head, MaskedHead)
        mask_C: Tensor | None = None
        mixed = None
        resolutions = self.space.input.resolutions
        for gate, size in zip(gates[0], resolutions, strict=True):
            if len(resolutions) > 1 and not gate.detach() > 0:
                continue
            part, mask_C = self._pooled_features(subsample(x_NCHW, size), gates)
            if not head.is_linear:
                part = head.masked_forward(part, gates, mask_C)
            part = part * gate if len(resolutions) > 1 else part
            mixed = part if mixed is None else mixed + part
        assert mixed is not None
        return head.masked_forward(mixed, gates, mask_C) if head.is_linear else mixed

    def blocks_of(self, choice: Choice) -> list[SharedBlock]:
        """The blocks of one child in order; the first one takes images of the child's resolution."""
        made = []
        for number, (shared, spec) in enumerate(zip(self.blocks, self.space.child(choice).blocks, strict=True)):
            module = self._structure(number, spec).train(self.training)
            tensors = {**dict(shared.named_parameters()), **dict(shared.named_buffers())}
            own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            slices = {name: slice_of(tensors[name], value.shape) for name, value in own.items()}
            made.append(SharedBlock(spec, module, slices))
        return made

    def images_of(self, choice: Choice, x_NCHW: Tensor) -> Tensor:
        """Images at the largest resolution, at that of a child."""
        return subsample(x_NCHW, self.space.decisions[0].width(choice[0]))

    def _child_scores(self, x_NCHW: Tensor, choice: Choice) -> Tensor:
        scores_NK = self.images_of(choice, x_NCHW)
        blocks = self.blocks_of(choice)
        for block in blocks:
            scores_NK = block(scores_NK)
        if not torch.is_grad_enabled():
            return scores_NK
        # As with masks, every parameter gets a gradient: several processes could not average gradients otherwise.
        own = {f"blocks.{number}.{name}" for number, block in enumerate(blocks) for name in block.slices}
        others = [value.flatten()[0] for name, value in self.named_parameters() if name not in own]
        return scores_NK + 0.0 * torch.stack(others).sum() if others else scores_NK

    def _structure(self, number: int, spec: BlockSpec) -> nn.Module:
        """A block without weights, which are slices of the shared ones. It is cached, because building takes time."""
        key = number, spec
        if key not in self._structures:
            if len(self._structures) >= MAX_STRUCTURES:
                self._structures.clear()
            with torch.device("meta"):
                self._structures[key] = build_block(spec)
        return self._structures[key]

    def _pooled_features(self, x_NCHW: Tensor, gates: Gates) -> tuple[Tensor, Tensor | None]:
        mask_C: Tensor | None = None
        for block in self.blocks[:-1]:
            assert isinstance(block, MaskedConv | MaskedInvertedResidual)
            x_NCHW = block.masked_forward(x_NCHW, gates, mask_C)
            mask_C = block.out_mask(gates)
        return torch.flatten(F.adaptive_avg_pool2d(x_NCHW, 1), 1), mask_C
