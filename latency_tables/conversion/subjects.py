"""Converts one block or network to a model of a runtime, and encodes it for a worker process."""

from __future__ import annotations

from pydantic import TypeAdapter
from torch import Tensor, nn

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.nets.build import build
from dmask_mobile.records.artifact import Precision, Preprocessing
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import Subject

SUBJECT: TypeAdapter[Subject] = TypeAdapter(Subject)


def convert_subject(subject: Subject, runtime: Runtime, precision: Precision) -> bytes:
    """The model of a block or of a whole network as it is deployed."""
    if isinstance(subject, ChildSpec):
        halves = Preprocessing(mean=(0.5,) * subject.in_channels, std=(0.25,) * subject.in_channels)
        return runtime.convert(Deployable(build(subject), halves), subject.input_shape, precision)
    block, in_size = subject
    module, shape = build_block(block).eval(), (1, block.in_width, in_size, in_size)
    if not runtime.nhwc_inside or block.kind == "head":  # a head has no feature map at its output
        return runtime.convert(module, shape, precision)
    is_stem = block.kind == "conv" and block.kernel > 1
    inside = Inside(module, takes_image=is_stem).eval()
    return runtime.convert(inside, shape if is_stem else (1, in_size, in_size, block.in_width), precision)


class Inside(nn.Module):
    """A block as it is inside a network that computes in NHWC: its input and output are (N, H, W, C).

    Otherwise a block that is measured alone would include two transposes that no network has, which is a quarter of the
    time of a small block.
    """

    def __init__(self, block: nn.Module, takes_image: bool) -> None:
        super().__init__()
        self.block = block
        self.takes_image = takes_image

    def forward(self, map_: Tensor) -> Tensor:
        output_NCHW: Tensor = self.block(map_ if self.takes_image else map_.permute(0, 3, 1, 2))
        return output_NCHW.permute(0, 2, 3, 1)
