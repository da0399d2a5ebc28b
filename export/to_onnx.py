"""ONNX by PyTorch's TorchScript exporter.

Why that one: it takes about 0.03 s a block, where the dynamo exporter takes seconds, and a latency table needs
hundreds of blocks. The same path makes the table's blocks and the deployed network, so that the table measures what
is shipped. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from dmask_mobile.records.base import temporary_beside

OPSET = 17


def to_onnx(module: nn.Module, input_shape: Sequence[int]) -> bytes:
    """The serialized ONNX model (opset 17, fixed batch) of ``module`` in evaluation mode: ``input`` -> ``output``."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the exporter's own age; see above
        torch.onnx.export(
            module.eval(),
            (torch.zeros(*input_shape),),
            buffer,  # type: ignore[arg-type]  # accepted by this exporter, absent from its annotation
            input_names=["input"],
            output_names=["output"],
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def write_onnx(model: bytes, path: Path, metadata: Mapping[str, str]) -> None:
    """Checks the model, adds ``metadata`` as ``metadata_props`` and writes it in one step."""
    proto = onnx.load_from_string(model)
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
