"""Converts one block or network to a model of a runtime, and encodes it for a worker process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from pydantic import TypeAdapter
from torch import nn

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.nets.build import build
from dmask_mobile.records.artifact import Precision, Preprocessing
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable
from latency_tables.conversion import executorch_blocks, litert_blocks, ncnn_blocks
from latency_tables.conversion.inside import block_module
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import Subject

# How blocks are made from one conversion for each structure, by runtime and precision: from a block, its input's size
# and its module; None where this block must be converted by itself.
BY_STRUCTURE: Mapping[tuple[str, Precision], Callable[[BlockSpec, int, nn.Module], bytes | None]] = {
    ("executorch", "fp32"): executorch_blocks.converted_by_structure,
    ("litert", "fp32"): litert_blocks.converted_by_structure,
    ("ncnn", "fp16"): functools.partial(ncnn_blocks.converted_by_structure, fp16=True),
    ("ncnn", "fp32"): ncnn_blocks.converted_by_structure,
}
SUBJECT: TypeAdapter[Subject] = TypeAdapter(Subject)


def convert_subject(subject: Subject, runtime: Runtime, precision: Precision) -> bytes:
    """The model of a block or of a whole network as it is deployed."""
    if isinstance(subject, ChildSpec):
        halves = Preprocessing(mean=(0.5,) * subject.in_channels, std=(0.25,) * subject.in_channels)
        return runtime.convert(Deployable(build(subject), halves), subject.input_shape, precision)
    block, in_size = subject
    module: nn.Module = build_block(block).eval()
    shape: tuple[int, ...] = (1, block.in_width, in_size, in_size)
    if runtime.nhwc_inside:
        module, shape = block_module(module, block, in_size)
    make = BY_STRUCTURE.get((runtime.name, precision))
    widths = (block.in_width, block.hidden_width, block.out_width, block.se_width)
    if make and 1 not in widths:  # with one channel, a dense convolution is a depthwise one
        made = make(block, in_size, module)
        if made is not None:
            return made
    return runtime.convert(module, shape, precision)


def by_structure(runtime: str, precision: Precision) -> bool:
    """Whether only one block of each structure is converted, and the others are that model with other sizes."""
    return (runtime, precision) in BY_STRUCTURE
