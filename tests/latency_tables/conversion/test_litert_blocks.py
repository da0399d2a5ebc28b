"""Models of blocks made from one conversion for each structure are those of the official converter."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.space import load_space
from export.formats.litert.writer import to_litert
from latency_tables.conversion import litert_blocks
from latency_tables.conversion.inside import block_module
from latency_tables.conversion.litert_blocks import converted_by_structure, structure_of
from latency_tables.profiling.plan import blocks_of
from latency_tables.table.rows import BlockAt

SPACES = ("mobilenet_small", "fbnetv2_f", "demo")
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


def contents(model: bytes, values: int | None = None) -> list[Any]:
    """Each operator with its options, and the shapes and types of what it takes and gives."""
    from ai_edge_litert.tools import flatbuffer_utils

    read = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    (graph,) = read.subgraphs
    return [
        (
            flatbuffer_utils.opcode_to_name(read, operation.opcodeIndex),
            vars(operation.builtinOptions) if operation.builtinOptions else None,
            [(list(graph.tensors[i].shape), graph.tensors[i].type) for i in (*operation.inputs, *operation.outputs)],
        )
        for operation in graph.operators
    ]


def output(model: bytes) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (tensor,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(tensor["index"], np.random.default_rng(0).random(tensor["shape"], dtype=np.float32))
    interpreter.invoke()
    found: np.ndarray = interpreter.get_tensor(result["index"])
    return found


def check_equal(block: BlockSpec, in_size: int) -> None:
    module, shape = block_module(build_block(block).eval(), block, in_size)
    ours, official = converted_by_structure(block, in_size, module, shape), to_litert(module, shape)
    assert contents(ours) == contents(official), block.describe()
    assert output(ours) == pytest.approx(output(official), rel=1e-5, abs=1e-6), block.describe()


@pytest.mark.slow
@pytest.mark.parametrize("located", FEW, ids=lambda located: located[0].describe())
def test_a_model_by_structure_is_that_of_the_official_converter(located: BlockAt) -> None:
    check_equal(*located)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_hundred_random_blocks(part: int) -> None:
    generator = random.Random(part)
    blocks = [generator.choice(blocks_of(load_space(SPACES[number % len(SPACES)]))) for number in range(20)]
    for block, in_size in blocks:
        check_equal(block, in_size)


def test_blocks_with_one_structure_share_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mobilenet_small's 3,889 blocks, each structure of which is converted once for even and once for odd sizes."""
    located = [at for at in blocks_of(load_space("mobilenet_small")) if at[0].kind != "skip"]
    assert len({structure_of(*at) for at in located}) < 45
    first, second = (
        BlockSpec(kind="inverted_residual", in_width=c, hidden_width=3 * c, out_width=2 * c, kernel=3) for c in (8, 40)
    )
    assert structure_of(first, 16) == structure_of(second, 128) != structure_of(second, 7)
    monkeypatch.setattr(litert_blocks, "to_litert", lambda module, shape: b"official")
    odd = first.model_copy(update={"padding": "same"})
    assert converted_by_structure(odd, 16, build_block(odd).eval(), (1, 8, 16, 16)) == b"official"
