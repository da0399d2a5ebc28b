"""Formats and precisions as test parameters; conversions that take many seconds run in CI."""

from __future__ import annotations

import pytest

from export.formats.registry import FORMATS

SLOW_FORMATS = ("litert", "executorch")
ALL_FORMATS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW_FORMATS else ()) for name in FORMATS]
ALL_VARIANTS = [
    pytest.param(name, precision, marks=pytest.mark.slow if name in SLOW_FORMATS else (), id=f"{name}-{precision}")
    for name, found in FORMATS.items()
    for precision in ("fp32", "fp16", "int8")
    if precision not in found.refused
]
