"""Models of blocks made from one conversion for each structure are those of the official converter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.block import BlockSpec
from export.formats.litert.writer import to_litert
from latency_tables.conversion.inside import block_module
from latency_tables.conversion.litert_blocks import converted_by_structure
from latency_tables.table.rows import BlockAt
from tests.latency_tables.conversion.random_blocks import FEW, PARTS, random_blocks


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
    ours, official = (
        converted_by_structure(block, in_size, module) or to_litert(module, shape),
        to_litert(module, shape),
    )
    assert contents(ours) == contents(official), block.describe()
    assert output(ours) == pytest.approx(output(official), rel=1e-5, abs=1e-6), block.describe()


@pytest.mark.slow
@pytest.mark.parametrize("located", FEW, ids=lambda located: located[0].describe())
def test_a_model_by_structure_is_that_of_the_official_converter(located: BlockAt) -> None:
    check_equal(*located)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_two_hundred_random_blocks(part: int) -> None:
    for located in random_blocks(part, 200):
        check_equal(*located)


def test_what_depends_on_the_size_in_another_way_is_left_to_the_converter() -> None:
    for block, in_size in ((FEW[0][0].model_copy(update={"padding": "same"}), 16), (FEW[4])):
        assert converted_by_structure(block, in_size, build_block(block).eval()) is None
