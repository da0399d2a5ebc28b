"""One contract for all runtimes, on this machine for real."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.space import load_space
from export.formats.registry import FORMATS
from latency_tables.conversion.converter import convert_subject
from latency_tables.devices.local import LocalDevice
from latency_tables.devices.options import DeviceOptions
from latency_tables.profiling.setup import setup_for
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.registry import RUNTIMES, runtime_named
from tests.latency_tables.contract import check_device

HERE = [name for name in RUNTIMES if name != "coreml"]
CASES = [
    pytest.param(name, precision, marks=pytest.mark.slow if (name, precision) != ("onnxruntime", "fp32") else ())
    for name in HERE
    for precision in ("fp32", "fp16", "int8")
    if precision not in FORMATS[runtime_named(name).model_format].refused
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_what_is_measured_is_what_was_converted(name: str, precision: Precision) -> None:
    check_device(LocalDevice(), runtime_named(name), precision)


def test_core_ml_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(DmaskError, match=r"coreml does not run: Core ML runs on macOS only.*--device ssh:MAC"):
        setup_for([DeviceOptions()], "coreml").head()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tvm"}, "no runtime 'tvm'; choose one of onnxruntime, litert"),
        ({"runtime": "ncnn", "precision": "int8"}, "ncnn has no int8: .*; choose another precision"),
        ({"runtime": "executorch", "delegate": "gpu"}, "executorch has no delegate 'gpu'; choose one of cpu"),
    ],
)
def test_what_a_runtime_has_not(options: dict[str, str], message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        setup_for([DeviceOptions()], **options)  # type: ignore[arg-type]


def test_the_cpu_does_not_pass_for_another_delegate() -> None:
    with pytest.raises(
        DmaskError,
        match="litert runs on the CPU from Python, not on 'gpu'; use a phone and",
    ):
        setup_for([DeviceOptions()], "litert", delegate="gpu")


def test_a_model_of_several_files_travels_as_one(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "weight.bin").write_bytes(b"w")
    (tmp_path / "model.param").write_text("p")
    for name in ("ncnn", "coreml"):
        with zipfile.ZipFile(io.BytesIO(runtime_named(name).read(tmp_path))) as archive:
            assert {n: archive.read(n) for n in archive.namelist()} == {"model.param": b"p", "weights/weight.bin": b"w"}


@pytest.mark.slow
def test_a_litert_block_alone_has_no_transpose_that_a_network_lacks() -> None:
    """Else small blocks cost a quarter more alone; the values are those of the block."""
    from ai_edge_litert.tools import flatbuffer_utils

    def operations(content: bytes) -> list[str]:
        model = flatbuffer_utils.read_model_from_bytearray(content)
        return [flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) for op in model.subgraphs[0].operators]

    child = load_space("mobilenet_small").child(load_space("mobilenet_small").smallest())
    blocks = [located for located in child.located_blocks() if located[0].kind != "skip"]
    inside = [operations(convert_subject(located, LiteRTRuntime(), "fp32")) for located in blocks]
    assert [name.count("TRANSPOSE") for name in inside] == [1] + [0] * (len(blocks) - 1)  # the image comes in NCHW
    whole = Counter(operations(convert_subject(child, LiteRTRuntime(), "fp32")))
    assert whole - Counter(MUL=1, ADD=1) == sum(map(Counter, inside), Counter())  # normalization comes on top
