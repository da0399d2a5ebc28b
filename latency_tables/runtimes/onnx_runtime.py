"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import nn

from export.to_onnx import to_onnx
from latency_tables.runtimes.runtime import Runner


class _Session:
    def __init__(self, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        # Input and output buffers are bound once: copying them in and out would be counted with every block.
        self.binding = self.session.io_binding()
        (tensor,) = self.session.get_inputs()
        image = np.random.default_rng(0).random(tensor.shape, dtype=np.float32)
        self.binding.bind_cpu_input(tensor.name, image)
        self.binding.bind_output(self.session.get_outputs()[0].name)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


class OnnxRuntime:
    """`Runtime` for ONNX Runtime's CPU execution provider."""

    name = "onnxruntime"

    def version(self) -> str:
        """The version of the installed onnxruntime."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def convert(self, module: nn.Module, input_shape: Sequence[int]) -> bytes:
        """The ONNX model of ``module``."""
        return to_onnx(module, input_shape)

    @contextmanager
    def open(self, model: bytes, threads: int) -> Iterator[Runner]:
        """A session with its buffers bound."""
        yield _Session(model, threads)
