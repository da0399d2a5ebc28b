"""`ChildSpec`: a whole network as plain data; search, training, export and verification all use it."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.block import BlockSpec, Size, Width
from dmask_mobile.records.names import Name

MAX_BLOCKS = 1_000
MAX_NAME = 300  # characters


class ChildSpec(FileRecord):
    """A classification network: a chain of blocks from the image to the class scores.

    ``digest()`` identifies the architecture and does not depend on ``name``. Table rows, artifacts and reports contain
    it.
    """

    file_format: ClassVar[str] = "dmask-child"
    file_version: ClassVar[int] = 2  # version 2 added blocks of imported networks
    oldest_version: ClassVar[int | None] = 1

    name: Name = Field(min_length=1, max_length=MAX_NAME)
    resolution: Size
    classes: Width
    blocks: tuple[BlockSpec, ...] = Field(min_length=1, max_length=MAX_BLOCKS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for index, (block, following) in enumerate(zip(self.blocks, self.blocks[1:], strict=False)):
            if block.out_width != following.in_width:
                raise ValueError(
                    f"block {index} gives {block.out_width} channels, but block {index + 1} takes {following.in_width}"
                )
        last = self.blocks[-1]
        if last.kind != "head" or last.out_width != self.classes:
            raise ValueError(f"the last block must be a head with out_width = classes = {self.classes}")
        if any(block.kind == "head" for block in self.blocks[:-1]):
            raise ValueError("only the last block may be a head")
        return self

    @property
    def written_version(self) -> int:
        """The oldest version that can contain its blocks, so that digests of older networks do not change."""
        return max(block.version for block in self.blocks)

    def digest(self) -> str:
        """Sixteen hexadecimal digits computed from everything except the name."""
        return super(ChildSpec, self.model_copy(update={"name": ""})).digest()

    @property
    def in_channels(self) -> int:
        """Channels of the input image."""
        return self.blocks[0].in_width

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one input batch: (1, channels, resolution, resolution)."""
        return (1, self.in_channels, self.resolution, self.resolution)

    def in_sizes(self) -> tuple[int, ...]:
        """Input height (= width) in pixels of each block."""
        sizes = [self.resolution]
        for block in self.blocks[:-1]:
            sizes.append(block.out_size(sizes[-1]))
        return tuple(sizes)

    def located_blocks(self) -> tuple[tuple[BlockSpec, int], ...]:
        """Each block with its input size in pixels."""
        return tuple(zip(self.blocks, self.in_sizes(), strict=True))
