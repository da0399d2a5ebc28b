"""How far an artifact's outputs are from PyTorch's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError


class Numerics(NamedTuple):
    """Differences between two sets of class scores (images, classes).

    ``relative_error`` is the largest absolute difference as a share of the reference's range.
    """

    relative_error: float
    top1_agreement: float
    accuracy: float
    reference_accuracy: float


def compare(reference_NK: Tensor, found_NK: Tensor, labels_N: Tensor) -> Numerics:
    """The differences.

    Raises:
        DmaskError: when there is nothing to compare or the shapes differ.
    """
    if reference_NK.shape != found_NK.shape:
        raise DmaskError(f"outputs must have the shape {tuple(reference_NK.shape)}, found {tuple(found_NK.shape)}")
    if not reference_NK.numel():
        raise DmaskError("no outputs to compare", "verify with at least one validation image")
    spread = float(reference_NK.max() - reference_NK.min())
    error = float((reference_NK - found_NK).abs().nan_to_num(nan=torch.inf).max())
    reference_top1, top1 = reference_NK.argmax(1), found_NK.argmax(1)
    return Numerics(
        error / max(spread, 1e-12),
        float((reference_top1 == top1).float().mean()),
        float((top1 == labels_N).float().mean()),
        float((reference_top1 == labels_N).float().mean()),
    )
