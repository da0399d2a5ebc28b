"""Core ML (ML program, fp32) by coremltools' TorchScript path."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


@contextlib.contextmanager
def quiet_coremltools() -> Iterator[Any]:
    """coremltools, without its notices that torch is newer than its tests and that this is not a Mac."""
    loggers = [logging.getLogger("coremltools"), logging.getLogger("coremltools.converters")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            warnings.simplefilter("ignore")
            import coremltools

            yield coremltools
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def write_coreml(module: nn.Module, input_shape: Sequence[int], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes ``module`` in evaluation mode to the package ``path`` (``.mlpackage``): ``input`` -> ``output``.

    Inputs, outputs and weights are float32; ``metadata`` goes to the user-defined metadata.
    """
    with quiet_coremltools() as coremltools:
        traced = torch.jit.trace(module.eval(), torch.zeros(*input_shape))  # type: ignore[no-untyped-call]
        model = coremltools.convert(
            traced,
            convert_to="mlprogram",
            # float32 must be asked for: the default for iOS 16 and later makes float16 inputs and outputs
            inputs=[coremltools.TensorType("input", shape=tuple(input_shape), dtype=np.float32)],
            outputs=[coremltools.TensorType("output", dtype=np.float32)],
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
        )
        model.user_defined_metadata.update(metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fresh = Path(folder) / path.name
            model.save(str(fresh))
            shutil.rmtree(path, ignore_errors=True)
            fresh.rename(path)
