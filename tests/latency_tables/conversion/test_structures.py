"""What blocks with one structure share."""

from __future__ import annotations

import numpy as np
import pytest

from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.space import load_space
from export.deployable import fold_norms
from latency_tables.conversion.structures import (
    NotATemplateError,
    Weight,
    names_by_size,
    parameters_of,
    sizes_of,
    structure_of,
    template_module,
    weight_in,
)
from latency_tables.profiling.plan import blocks_of


def test_blocks_with_one_structure_share_a_conversion() -> None:
    """Of mobilenet_small's 3,889 blocks, each structure of which is converted once for even and once for odd sizes."""
    assert len({structure_of(*located) for located in blocks_of(load_space("mobilenet_small"))}) < 45
    first, second = (
        BlockSpec(kind="inverted_residual", in_width=c, hidden_width=3 * c, out_width=2 * c, kernel=3) for c in (8, 40)
    )
    assert structure_of(first, 16) == structure_of(second, 128) != structure_of(second, 7)
    assert structure_of(first, 16) != structure_of(first.model_copy(update={"kernel": 5}), 16)


def test_the_sizes_of_a_template_all_differ() -> None:
    block = BlockSpec(
        kind="inverted_residual", in_width=8, hidden_width=16, out_width=8, kernel=5, stride=2, se_width=8
    )
    template, in_size = structure_of(block, 9)
    assert names_by_size(template, in_size) == {
        53: "in_width", 67: "hidden_width", 59: "out_width", 61: "se_width", 19: "in_size", 10: "out_size",
        23: "padded_5",
    }  # fmt: skip
    assert sizes_of(block, 9)["padded_5"] == 13


def test_each_weight_of_a_template_is_found_by_its_values() -> None:
    block, _ = structure_of(BlockSpec(kind="inverted_residual", in_width=8, hidden_width=8, out_width=8, kernel=3), 8)
    parameters = parameters_of(fold_norms(template_module(block)))
    dense, bias = parameters["expand.conv.weight"], parameters["depthwise.conv.bias"]
    assert weight_in(dense.transpose(0, 2, 3, 1), parameters) == Weight("expand.conv.weight", (0, 2, 3, 1))
    assert weight_in(bias + 3, parameters, (0.0, 3.0)) == Weight("depthwise.conv.bias", (0,), 3.0)
    assert weight_in(np.zeros(5, np.float32), parameters) == Weight("")
    with pytest.raises(NotATemplateError, match=r"a constant of shape \(67,\)"):
        weight_in(bias + 1, parameters)
