"""A small space and few images: a search and a training in seconds."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from dmask_mobile.data.images import ImageData
from dmask_mobile.data.load import load_data
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import SearchSpace

SPACE = SearchSpace.model_validate(
    {
        "name": "small",
        "classes": 36,
        "input": {"resolutions": [16]},
        "stem": {"widths": [8, 16]},
        "stages": [
            {"blocks": 2, "widths": [8, 12, 16], "stride": 2, "expansions": [1, 2, 3], "kernels": [3, 5],
             "squeeze_excite": [False, True], "skip": True},
        ],
        "last": {"widths": [16, 32]},
    }
)  # fmt: skip


def few_images(count: int = 600) -> ImageData:
    data = _glyphs()
    chosen = torch.arange(count)
    return replace(data, train=data.train.subset(chosen), val=data.val.subset(chosen[: count // 3]))


@functools.cache
def _glyphs() -> ImageData:
    return load_data("glyphs", 16, DataOptions(workers=0))
