"""Blocks with one structure, which differ in sizes and weights alone, so that one conversion is enough for all of them.

A converter takes a second for a block, whatever its size: tracing and decomposing. So one block of each structure is
converted, with sizes that all differ and random weights: its template. Where such a size appears in the template, that
of the wanted block takes its place. Where a weight of the module appears, that of the wanted block takes its place, in
the same layout. A model in which something else depends on sizes is no template: then each block with that structure is
converted by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.block import BlockSpec

# Of templates: all sizes differ, also from those of maps with the borders of the largest kernel.
WIDTHS = {"in_width": 53, "hidden_width": 67, "out_width": 59, "se_width": 61}
SIZES = {0: 18, 1: 19}  # pixels, by whether the wanted size is odd
LAYOUTS = {4: ((0, 2, 3, 1), (1, 2, 3, 0)), 2: ((0, 1),), 1: ((0,),)}  # of dense and depthwise weights, by dimensions

Arrays = Mapping[str, np.ndarray]


class NotATemplateError(Exception):
    """A model in which something depends on sizes in a way that is not known here."""


class Weight(NamedTuple):
    """Where a constant comes from: a parameter of the module, or zeros if ``name`` is empty."""

    name: str
    layout: tuple[int, ...] = ()
    offset: float = 0.0

    def values(self, parameters: Arrays) -> np.ndarray:
        """The constant of the module with these parameters; ``name`` must not be empty."""
        return np.ascontiguousarray(parameters[self.name].transpose(self.layout) + np.float32(self.offset))


def structure_of(block: BlockSpec, in_size: int) -> tuple[BlockSpec, int]:
    """The block with this structure that is converted, and its input's size: the same for all blocks with it."""
    widths = {name: size for name, size in WIDTHS.items() if getattr(block, name)}
    if block.residual:
        widths["out_width"] = widths["in_width"]
    if not block.expand:
        widths["hidden_width"] = widths["in_width"]
    return block.model_copy(update=widths), SIZES[in_size % 2]


def out_size_of(block: BlockSpec, in_size: int) -> int:
    """Height and width of the output; of a head's input, which has no map at its output."""
    return in_size if block.kind == "head" else block.out_size(in_size)


def sizes_of(block: BlockSpec, in_size: int) -> dict[str, int]:
    """Every size that may appear in a shape, by name: widths, input, output, input with its borders."""
    sizes = {name: getattr(block, name) for name in WIDTHS}
    out_size = out_size_of(block, in_size)
    padded = {f"padded_{kernel}": in_size + 2 * (kernel // 2) for kernel in (block.kernel, block.start_kernel)}
    strided = block.kernel if block.depthwise else block.start_kernel
    padded["padded_same"] = max(in_size, (out_size - 1) * block.stride + strided)
    return {**sizes, "in_size": in_size, "out_size": out_size, **padded}


def names_by_size(block: BlockSpec, in_size: int) -> dict[int, str]:
    """The name of each size of a template, except those of one pixel."""
    return {size: name for name, size in reversed(sizes_of(block, in_size).items()) if size > 1}


def template_module(block: BlockSpec) -> nn.Module:
    """A module of ``block`` in which no two parameters have the same values, also after norms are folded."""
    module, generator = build_block(block).eval(), torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            random = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(random + 0.5 if name.endswith(("norm.weight", "running_var")) else random - 0.5)
    return module


def parameters_of(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters of a module by name."""
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def weight_in(values: np.ndarray, parameters: Arrays, offsets: Iterable[float] = (0.0,)) -> Weight:
    """The weight that ``values`` are, in one of the layouts and with one of the offsets that a converter may use.

    Raises:
        NotATemplateError: if they are none.
    """
    if not values.any():
        return Weight("")
    for (name, parameter), offset in itertools.product(parameters.items(), offsets):
        for layout in LAYOUTS[parameter.ndim]:
            weight = Weight(name, layout, offset)
            candidate = weight.values(parameters)
            if candidate.shape == values.shape and np.allclose(candidate, values, rtol=1e-5, atol=1e-7):
                return weight
    raise NotATemplateError(f"a constant of shape {values.shape}")
