"""A .pte file opened for verification: it runs in ExecuTorch's runtime and is counted from its delegate's graph."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import read_bytes
from export.formats.executorch.graph import XnnGraph
from export.formats.limits import MAX_MODEL_BYTES, check_tensor_sizes
from export.formats.protocols import Counts

CAST = "dim_order_ops::_to_dim_order_copy"


@contextlib.contextmanager
def quiet_executorch() -> Iterator[None]:
    """ExecuTorch without its warnings, logs and C++ messages; its partitioner also configures the root logger."""
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handlers, level = root.handlers[:], root.level
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _quiet_stderr():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """A context that discards output to file descriptor 2, where the runtime's C++ code writes."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


class ExecuTorchModel:
    """`ExportedModel` for ExecuTorch.

    The file is first read in Python, where a damaged file raises an exception; the C++ runtime may crash on it.

    Raises:
        DmaskError: if the file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with quiet_executorch():
                content = read_bytes(path, MAX_MODEL_BYTES)
                self._unused_bytes = len(content) - _promised_bytes(content)
                program = _read_program(content)
                (self._plan,) = (plan for plan in program.execution_plan if plan.name == "forward")
                check_tensor_sizes(value.val.sizes for value in self._plan.values if hasattr(value.val, "sizes"))
                self._graphs = [XnnGraph(payload) for payload in _payloads(program, self._plan)]
                self._strings = dict(_constant_strings(program))
                self._program = load_program(content)  # keeps the bytes that its methods read
                self._forward = self._program.load_method("forward")
        except Exception as error:  # flatbuffers, ExecuTorch and flatc each have their own exceptions
            raise DmaskError(
                f"'{path}' cannot be loaded as an ExecuTorch program: {error}", "export it again"
            ) from error

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """The output, one image after the other; see `ExportedModel`."""
        rows = [self._forward.execute([image[None].contiguous()])[0].clone() for image in images]
        return {"output": torch.cat(rows)}

    def names(self) -> None:
        """None: the inputs and outputs of a method have positions, not names."""
        return

    def unused_bytes(self) -> int:
        """Bytes after the last segment that the header names."""
        return self._unused_bytes

    def counts(self) -> Counts:
        """Multiply-adds and weights of the delegate's convolutions and linear layers, from the shapes in the graph.

        Raises:
            DmaskError: if operations with unknown multiply-adds run outside the delegate.
        """
        outside = {name for name, _ in self._kernel_calls()} - {CAST}
        if outside:
            raise DmaskError(
                f"'{self._path}': the multiply-adds of {', '.join(sorted(outside))} outside the delegate are not known",
                "export it again",
            )
        counts = [graph.counts() for graph in self._graphs]
        return Counts(sum(count.macs for count in counts), sum(count.params for count in counts))

    def stray_operations(self) -> dict[str, int]:
        """Operations outside the delegate, its transposes and conversions, and layers that stayed in float with int8.

        Necessary operations do not count: fp16's casts of the program's input and output, a transpose of the input to
        NHWC and one back before the linear layer, and int8's conversions around an operation that XNNPACK supports only
        in float.
        """
        ends = {*self._plan.inputs, *self._plan.outputs}
        found = Counter(name for name, values in self._kernel_calls() if name != CAST or not ends & set(values))
        for graph in self._graphs:
            found.update(graph.stray_operations())
        return dict(found)

    def metadata(self) -> dict[str, str]:
        """The strings that the program's constant methods return."""
        return dict(self._strings)

    def intermediates(self, image: Tensor) -> None:
        """None: a delegate is one operation."""
        return

    def _kernel_calls(self) -> Iterator[tuple[str, list[int]]]:
        """The operations outside the delegate, with their values."""
        for chain in self._plan.chains:
            for instruction in chain.instructions:
                call = instruction.instr_args
                if type(call).__name__ == "KernelCall":
                    yield self._plan.operators[call.op_index].name, call.args


def _promised_bytes(content: bytes) -> int:
    """The length of the file according to its header (executorch/schema/extended_header.h).

    Raises:
        ValueError: for a file that is not a program or is truncated.
    """
    if content[4:8] != b"ET12" or content[8:12] != b"eh00":
        raise ValueError("it does not begin like one")
    program_size, segments_at, segments_size = (int.from_bytes(content[at : at + 8], "little") for at in (16, 24, 32))
    promised = max(program_size, segments_at + segments_size)
    if len(content) < promised:
        raise ValueError(f"its header states {promised} bytes, found {len(content)}")
    return promised


def _read_program(content: bytes) -> Any:
    """The program as ExecuTorch's own records, for which ExecuTorch has no public reader."""
    from executorch.exir._serialize import _deserialize_pte_binary

    return _deserialize_pte_binary(content).program


def _payloads(program: Any, plan: Any) -> Iterator[bytes]:
    """The data of each delegate of the plan.

    Raises:
        ValueError: for a delegate other than XNNPACK.
    """
    for delegate in plan.delegates:
        if delegate.id != "XnnpackBackend":
            raise ValueError(f"its delegate must be XnnpackBackend, found {delegate.id}")
        yield bytes(program.backend_delegate_data[delegate.processed.index].data)


def _constant_strings(program: Any) -> Iterator[tuple[str, str]]:
    """The methods that only return a string, each with its string."""
    for plan in program.execution_plan:
        values = [plan.values[number].val for number in plan.outputs]
        if not plan.inputs and len(values) == 1 and type(values[0]).__name__ == "String":
            yield plan.name, values[0].string_val


def load_program(content: bytes) -> Any:
    """The program in ExecuTorch's runtime; its methods read ``content`` from it, so it must outlive them."""
    from executorch.runtime import Runtime, Verification

    return Runtime.get().load_program(content, verification=Verification.InternalConsistency)
