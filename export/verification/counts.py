"""Counts by fvcore, an independent check of the PyTorch network."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from export.formats.protocols import Counts


def count_fvcore(module: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """Multiply-adds and weights, counted by operator because fvcore's total includes norms and pooling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, which torch reports as deprecated
        from fvcore.nn import FlopCountAnalysis, parameter_count

        analysis = FlopCountAnalysis(module.eval(), torch.zeros(input_shape)).unsupported_ops_warnings(False)
        by_operator = analysis.uncalled_modules_warnings(False).by_operator()
        all_params = parameter_count(module)
    layers = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return Counts(
        int(by_operator["conv"] + by_operator["linear"]), sum(int(all_params[f"{name}.weight"]) for name in layers)
    )
