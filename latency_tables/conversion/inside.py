"""A block as it is inside a network that computes in NHWC."""

from __future__ import annotations

from torch import Tensor, nn

from dmask_mobile.records.block import BlockSpec


def block_module(module: nn.Module, block: BlockSpec, in_size: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A block as it is inside a network that computes in NHWC, and the shape of its input."""
    if block.kind == "head":  # a head has no feature map at its output
        return module, (1, block.in_width, in_size, in_size)
    is_stem = block.kind == "conv" and block.kernel > 1
    shape = (1, block.in_width, in_size, in_size) if is_stem else (1, in_size, in_size, block.in_width)
    return Inside(module, takes_image=is_stem).eval(), shape


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
