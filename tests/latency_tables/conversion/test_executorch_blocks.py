"""ExecuTorch programs of blocks made from one conversion for each structure are those of the official converter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.block import BlockSpec
from export.formats.executorch.reader import load_program, quiet_executorch
from export.formats.executorch.writer import to_executorch
from latency_tables.conversion import executorch_blocks
from latency_tables.conversion.executorch_blocks import FIRST_MARKER, converted_by_structure
from latency_tables.conversion.structures import NotATemplateError
from tests.latency_tables.conversion.random_blocks import FEW, OTHER_KINDS, PARTS, random_blocks

SAME_BYTES = BlockSpec(kind="inverted_residual", in_width=8, hidden_width=24, out_width=32, kernel=3, stride=2)
WITH_BORDERS, _ = OTHER_KINDS[1]
KNOWN = {53: "in_width", 18: "in_size", 9: "out_size"}


def check_equal(block: BlockSpec, in_size: int) -> None:
    """The same bytes, so the same operators, shapes, weights and memory plan."""
    module = build_block(block).eval()
    official = to_executorch(module, (1, block.in_width, in_size, in_size))
    assert converted_by_structure(block, in_size, module) == official, (block.describe(), in_size)


@pytest.mark.slow
def test_a_model_by_structure_runs_and_computes_the_block() -> None:
    block, in_size = FEW[0]
    module = build_block(block).eval()
    image = torch.rand(1, block.in_width, in_size, in_size, generator=torch.Generator().manual_seed(0))
    made = converted_by_structure(block, in_size, module)
    assert made is not None
    with quiet_executorch():
        program = load_program(made)  # it must outlive its methods
        (found,) = program.load_method("forward").execute([image])
        found = found.clone()
    with torch.no_grad():
        torch.testing.assert_close(found, module(image), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_random_blocks(part: int) -> None:
    """The places of input and output in memory depend on which is larger."""
    few = [*FEW, OTHER_KINDS[0], OTHER_KINDS[1], (WITH_BORDERS, 18), (SAME_BYTES, 16)]
    for located in (*few[part::PARTS], *random_blocks(part, 10)):
        check_equal(*located)


def graph(**fields: Any) -> dict[str, Any]:
    tensor = {"datatype": "xnn_datatype_fp32", "constant_buffer_idx": 0, "dims": [1, 18, 18, 53]}
    return {
        "xvalues": [{"xvalue_union": {**tensor, **fields}}],
        "xnodes": [{"xnode_union_type": "XNNPad", "xnode_union": {"input_id": 18, "kernel_height": 3}}],
    }


def test_sizes_are_found_in_shapes_but_not_in_numbers_of_tensors() -> None:
    found = list(executorch_blocks._sizes(graph(), KNOWN))
    assert [(axis, name) for _, axis, name in found] == [(1, "in_size"), (2, "in_size"), (3, "in_width")]
    weight = list(executorch_blocks._sizes(graph(constant_buffer_idx=1, dims=[1, 9, 9, 53]), KNOWN))
    assert [(axis, name) for _, axis, name in weight] == [(3, "in_width")]  # the kernel is as large as the output


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (graph(dims=[1, 20, 18, 53]), r"a tensor of shape \[1, 20, 18, 53\]"),
        (graph(datatype="xnn_datatype_qint8"), "a tensor that is not float32"),
        ({**graph(), "xnodes": [{"xnode_union_type": "XNNPad", "xnode_union": {"rows": 18}}]}, "rows of XNNPad"),
    ],
    ids=["shape", "type", "field"],
)
def test_what_depends_on_sizes_in_an_unknown_way_is_no_template(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(NotATemplateError, match=problem):
        list(executorch_blocks._sizes(changed, KNOWN))


def test_a_marker_has_one_place() -> None:
    marker = np.uint32(FIRST_MARKER + 1).tobytes()
    assert executorch_blocks._place_of(marker, b"1234" + marker) == 4
    for content in (marker + marker, b"1234"):
        with pytest.raises(NotATemplateError, match="a number that looks like a marker"):
            executorch_blocks._place_of(marker, content)


def test_a_template_that_is_not_its_own_model_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes and weights of the template put into it must give the same bytes."""
    monkeypatch.setattr(executorch_blocks, "to_executorch", lambda module, shape: b"official")
    monkeypatch.setattr(executorch_blocks, "_template_of", lambda content, dims, parameters: None)
    monkeypatch.setattr(executorch_blocks, "_filled", lambda template, sizes, parameters: b"other")
    block, in_size = FEW[0]
    executorch_blocks._template.cache_clear()
    try:
        assert converted_by_structure(block, in_size, build_block(block).eval()) is None
    finally:
        executorch_blocks._template.cache_clear()
