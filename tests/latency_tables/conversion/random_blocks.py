"""Blocks on which models made by structure are compared with those of the official converters."""

from __future__ import annotations

import os
import random

from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.space import load_space
from latency_tables.profiling.plan import blocks_of
from latency_tables.table.rows import BlockAt

SPACES = ("mobilenet_small", "fbnetv2_f", "demo")
PARTS = 10
FEW: list[BlockAt] = [
    (
        BlockSpec(
            kind="inverted_residual", in_width=16, hidden_width=72, out_width=24, kernel=5, stride=2, se_width=24,
            activation="hswish",
        ),
        14,
    ),
    (
        BlockSpec(
            kind="inverted_residual", in_width=24, hidden_width=24, out_width=24, expand=False, kernel=3, stride=1,
            residual=True,
        ),
        9,
    ),
    (BlockSpec(kind="inverted_residual", in_width=24, hidden_width=48, out_width=48, kernel=3, stride=2), 7),
    (BlockSpec(kind="head", in_width=64, out_width=10), 4),
    (BlockSpec(kind="inverted_residual", in_width=8, hidden_width=8, out_width=8, kernel=5, stride=2), 2),
]  # fmt: skip
OTHER_KINDS: list[BlockAt] = [
    (
        BlockSpec(
            kind="fused_inverted_residual", in_width=16, hidden_width=40, out_width=16, kernel=3, se_width=8,
            se_gate="sigmoid", activation="relu6", residual=True,
        ),
        9,
    ),
    (
        BlockSpec(
            kind="inverted_residual", in_width=16, hidden_width=40, out_width=24, kernel=5, stride=2, start_kernel=3,
            padding="same", activation="silu",
        ),
        13,
    ),
    (BlockSpec(kind="pooled_inverted_residual", in_width=16, hidden_width=40, out_width=24, activation="hswish"), 7),
    (BlockSpec(kind="head", in_width=16, hidden_width=40, out_width=24, activation="hswish"), 1),
    (BlockSpec(kind="widening_skip", in_width=16, out_width=24), 5),
    (BlockSpec(kind="conv", in_width=16, out_width=16, kernel=3, residual=True), 1),
]  # fmt: skip


def random_blocks(part: int, all_parts: int) -> list[BlockAt]:
    """One of `PARTS` parts of ``all_parts`` random blocks, or of ``DMASK_RANDOM_BLOCKS``, where that is set."""
    count = int(os.environ.get("DMASK_RANDOM_BLOCKS", all_parts)) // PARTS
    generator = random.Random(part)
    return [generator.choice(blocks_of(load_space(SPACES[number % len(SPACES)]))) for number in range(count)]
