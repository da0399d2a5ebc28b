"""The differences between the outputs of an artifact and of PyTorch, and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import Record


class Limits(Record):
    """The limits of a verification.

    ``max_error`` and ``mean_error`` are absolute differences as shares of the reference's range; ``min_snr_db`` is
    ``10 log10(sum reference^2 / sum difference^2)``.
    """

    max_error: float = Field(ge=0)
    mean_error: float = Field(ge=0)
    min_cosine: float = Field(le=1)
    min_snr_db: float
    min_top1_agreement: float = Field(ge=0, le=1)
    max_accuracy_drop: float = Field(ge=0, le=1)


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(
        max_error=1e-4, mean_error=1e-5, min_cosine=0.99999, min_snr_db=80,
        min_top1_agreement=0.995, max_accuracy_drop=0.005,
    ),
    "fp16": Limits(
        max_error=0.02, mean_error=0.002, min_cosine=0.999, min_snr_db=40,
        min_top1_agreement=0.995, max_accuracy_drop=0.005,
    ),
    "int8": Limits(
        max_error=0.25, mean_error=0.03, min_cosine=0.9, min_snr_db=15,
        min_top1_agreement=0.97, max_accuracy_drop=0.02,
    ),
}  # fmt: skip


def limits_of(precision: Precision, overrides: Mapping[str, float]) -> Limits:
    """The limits of a precision with some of them replaced.

    Raises:
        DmaskError: for a name that is not a limit.
        ValidationError: for a value outside a limit's range.
    """
    unknown = set(overrides) - set(Limits.model_fields)
    if unknown:
        raise DmaskError(f"no limit '{sorted(unknown)[0]}'", f"choose from {', '.join(Limits.model_fields)}")
    return Limits.model_validate({**LIMITS[precision].model_dump(), **overrides})


COSINE_QUANTILE = 0.05
"""The quantile over images. A correct int8 child has 0.998 here. Its worst image has 0.992, but the worst image of
other correct children may have 0.6. With one weight scale doubled, all activations clipped to half, one zero point off
by 128, or weights of one scale with outliers, the SNR (below 15 dB) or this cosine (below 0.9) fails, and mostly both
do."""


class Numerics(NamedTuple):
    """Differences between two sets of class scores (images, classes), named as in `Limits`.

    ``accuracy`` and ``reference_accuracy``: None without labels. ``worst_image``: the image with the largest error.
    """

    max_error: float
    mean_error: float
    cosine: float
    snr_db: float
    top1_agreement: float
    accuracy: float | None
    reference_accuracy: float | None
    worst_image: int


def compare(reference_NK: Tensor, found_NK: Tensor, labels_N: Tensor | None) -> Numerics:
    """The differences. NaN and infinity make errors infinite and are never the top class.

    ``cosine`` is the 5th percentile over the images, because a single image with small outputs can have nearly any
    angle.

    Raises:
        DmaskError: if there is nothing to compare or the shapes differ.
    """
    if reference_NK.shape != found_NK.shape:
        raise DmaskError(
            f"outputs must have the shape {tuple(reference_NK.shape)}, found {tuple(found_NK.shape)}",
            "export the model again",
        )
    if not reference_NK.numel():
        raise DmaskError("no outputs to compare", "verify with at least one validation image")
    reference_NK, found_NK = reference_NK.double(), found_NK.double()
    spread = max(float(reference_NK.max() - reference_NK.min()), 1e-12)
    broken = not bool(found_NK.isfinite().all())
    error_NK = (reference_NK - found_NK).abs()
    reference_top1, top1 = reference_NK.argmax(1), found_NK.nan_to_num(nan=-math.inf, posinf=-math.inf).argmax(1)
    return Numerics(
        math.inf if broken else float(error_NK.max()) / spread,
        math.inf if broken else float(error_NK.mean()) / spread,
        -1.0 if broken else _low_cosine(reference_NK, found_NK),
        -math.inf if broken else _snr_db(reference_NK, error_NK),
        float((reference_top1 == top1).double().mean()),
        None if labels_N is None else float((top1 == labels_N).double().mean()),
        None if labels_N is None else float((reference_top1 == labels_N).double().mean()),
        int(error_NK.nan_to_num(nan=math.inf, posinf=math.inf).amax(1).argmax()),
    )


def relative_error(reference: Tensor, found: Tensor) -> float:
    """The largest absolute difference as a share of the reference's range; infinite for NaN and infinities."""
    if not bool(found.isfinite().all()):
        return math.inf
    spread = float(reference.max() - reference.min())
    return float((reference - found).abs().max()) / max(spread, 1e-12)


def _low_cosine(reference_NK: Tensor, found_NK: Tensor) -> float:
    cosines_N = torch.nn.functional.cosine_similarity(reference_NK, found_NK, dim=1)
    return float(torch.quantile(cosines_N, COSINE_QUANTILE))


def _snr_db(reference: Tensor, error: Tensor) -> float:
    noise, signal = float(error.square().sum()), float(reference.square().sum())
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)
