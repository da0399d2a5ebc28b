"""A cost of your own: the number of blocks that a network keeps.

    dmask search SPACE --cost examples.depth_cost:Depth --budget depth=9 --data glyphs -o runs/deep

Run from the folder that holds the module. The same class works from Python: ``api.search(..., costs=[Depth()])``.
"""

from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.records.block import BlockSpec


class Depth(AdditiveCost):
    """Blocks that are not skipped."""

    name = "depth"
    unit = "blocks"

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        return 0.0 if block.kind == "skip" else 1.0
