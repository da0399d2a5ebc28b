"""Converts one block or network to a model of a runtime, and encodes it for a worker process."""

from __future__ import annotations

from pydantic import TypeAdapter
from torch import nn

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.nets.build import build
from dmask_mobile.records.artifact import Precision, Preprocessing
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable
from latency_tables.conversion.inside import block_module
from latency_tables.conversion.litert_blocks import converted_by_structure
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import Subject

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
    if by_structure(runtime.name, precision):
        return converted_by_structure(block, in_size, module, shape)
    return runtime.convert(module, shape, precision)


def by_structure(runtime: str, precision: Precision) -> bool:
    """Whether only one block of each structure is converted, and the others are that model with other sizes."""
    return (runtime, precision) == ("litert", "fp32")
