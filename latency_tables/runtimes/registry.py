"""The runtimes by name."""

from __future__ import annotations

from dmask_mobile.errors import DmaskError
from latency_tables.runtimes.coreml import CoreMLRuntime
from latency_tables.runtimes.executorch import ExecuTorchRuntime
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.ncnn import NcnnRuntime
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime

RUNTIMES: dict[str, type[Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "litert": LiteRTRuntime,
    "executorch": ExecuTorchRuntime,
    "ncnn": NcnnRuntime,
    "coreml": CoreMLRuntime,
}


def runtime_named(name: str) -> Runtime:
    """The runtime ``name``.

    Raises:
        DmaskError: for an unknown name.
    """
    if name not in RUNTIMES:
        raise DmaskError(f"no runtime '{name}'", f"choose one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]()
