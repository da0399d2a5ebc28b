"""Writes ncnn (param and bin, fp32 or fp16 weights) by pnnx, ncnn's own converter for PyTorch."""

from __future__ import annotations

import copy
import json
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.nets.blocks import Head, PooledInvertedResidual
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.temporary import folder_beside
from export.formats.ncnn.reader import NcnnModel
from export.formats.protocols import ExportedModel, ExportRequest


class Ncnn:
    """`Format` for ncnn: a folder of ``model.param``, ``model.bin``, ``labels.txt`` and ``description.json``.

    ncnn has no metadata and no batch: an image is (C, H, W). fp16: weights are stored in float16; options on the device
    decide whether computation is also in float16.
    """

    suffix = ".ncnn"
    package = "ncnn"
    extra = "ncnn"
    refused: ClassVar[Mapping[Precision, str]] = {
        "int8": "ncnn's quantization tools, ncnn2table and ncnn2int8, are C++ programs that no Python package contains"
    }
    int8_activations = False
    layouts = ("NCHW",)
    dynamic_batch = False
    crashes_on_damage = False

    def weight_bytes(self, child: ChildSpec, precision: Precision) -> float:
        """Bytes of the child's weights; see `Format`."""
        return WeightBytes(precision).estimate(child).value

    def write(self, request: ExportRequest, path: Path) -> None:
        """Converts the model and writes the folder in one step; see `Format`.

        Raises:
            RuntimeError: if pnnx fails, with the end of its log.
        """
        with folder_beside(path) as fresh:
            to_ncnn(request.model, request.description.input_shape, fresh, fp16=request.description.precision == "fp16")
            (fresh / "labels.txt").write_text("\n".join(request.description.class_names) + "\n", encoding="utf-8")
            metadata = json.dumps(request.description.to_metadata(), indent=1) + "\n"
            (fresh / "description.json").write_text(metadata, encoding="utf-8")

    def open(self, path: Path) -> ExportedModel:
        """The folder, loaded into ncnn; see `Format`."""
        return NcnnModel(path)


def to_ncnn(module: nn.Module, input_shape: Sequence[int], folder: Path, *, fp16: bool = False) -> None:
    """Writes the ncnn model of ``module`` to ``model.param`` and ``model.bin`` in ``folder``: ``input`` -> ``output``.

    Raises:
        RuntimeError: if pnnx fails, with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix=".pnnx.", dir=folder) as temporary:
        work = Path(temporary)
        _run_pnnx(module, input_shape, fp16=fp16, folder=work)
        param = (work / "model.ncnn.param").read_text(encoding="utf-8")
        (folder / "model.param").write_text(_named(param, input_shape), encoding="utf-8")
        (work / "model.ncnn.bin").rename(folder / "model.bin")


def _run_pnnx(model: nn.Module, input_shape: Sequence[int], *, fp16: bool, folder: Path) -> None:
    """Writes ``model.ncnn.param`` and ``model.ncnn.bin`` to ``folder``, next to pnnx's other files.

    The program is run directly, because ``pnnx.export`` works in the current folder, imports the Python file that it
    generates, and ignores the exit status.
    """
    import pnnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch reports TorchScript as deprecated, but pnnx supports it best
        traced = torch.jit.trace(_without_second_pool(model), torch.zeros(*input_shape), check_trace=False)  # type: ignore[no-untyped-call]
        # Not traced.save(path): PyTorch ends the whole process if the disk is full.
        (folder / "model.pt").write_bytes(traced.save_to_buffer())
    shape = ",".join(str(size) for size in input_shape)
    done = subprocess.run(
        [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]f32", f"fp16={int(fp16)}"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not all((folder / f"model.ncnn.{kind}").is_file() for kind in ("param", "bin")):
        raise RuntimeError(f"pnnx ended with status {done.returncode}: {(done.stdout + done.stderr)[-500:].strip()}")


def _without_second_pool(model: nn.Module) -> nn.Module:
    """A copy of the model whose head does not pool the single pixel of `PooledInvertedResidual` again.

    ncnn stores that pixel as a vector, so pnnx 20261020 adds a Reshape before the second pooling, with an expression as
    its shape. ncnn supports these only since April 2025 (https://github.com/Tencent/ncnn/pull/5918).
    """
    model = copy.deepcopy(model)
    for network in list(model.modules()):
        if isinstance(network, ChildNetwork):
            *_, before, head = network.blocks
            if isinstance(before, PooledInvertedResidual) and isinstance(head, Head):
                network.blocks[-1] = nn.Sequential(nn.Flatten(), head.linear)
    return model


def _named(param: str, input_shape: Sequence[int]) -> str:
    """pnnx's param file with ``in0`` and ``out0`` renamed to ``input`` and ``output``, and with the input's shape."""
    _, channels, height, width = input_shape
    names = {"in0": "input", "out0": "output"}
    lines = []
    for line in param.splitlines():
        kind, *fields = line.split()
        if kind == "Input":
            fields += [f"0={width}", f"1={height}", f"2={channels}"]
        lines.append(" ".join([kind, *(names.get(field, field) for field in fields)]))
    return "\n".join(lines) + "\n"
