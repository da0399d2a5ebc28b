"""Limits on the sizes of the parts of a model file, which may be untrusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

MAX_MODEL_BYTES = 2**30  # of one file; the largest published network for phones has about 200 MB in fp32
MAX_TEXT_BYTES = 16 * 2**20  # of a text file in a model: labels, a manifest, a description
MAX_TENSOR_VALUES = 2**28  # of one tensor, for one image; 1 GiB in float32


def check_tensor_sizes(shapes: Iterable[Sequence[int]]) -> None:
    """Checks that each of these tensors fits into memory; an open axis counts as 1.

    Raises:
        ValueError: for a tensor with more than `MAX_TENSOR_VALUES` values.
    """
    for shape in shapes:
        if prod(max(1, size) for size in shape) > MAX_TENSOR_VALUES:
            raise ValueError(f"a tensor has the shape {tuple(shape)}; at most {MAX_TENSOR_VALUES:,} values are allowed")
