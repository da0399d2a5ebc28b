"""LiteRT files: written at every precision, opened, run by LiteRT's own interpreter, described, damaged."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.named import named_child
from dmask_mobile.records.artifact import ModelDescription
from dmask_mobile.records.space import load_space
from export.formats.litert.metadata import described
from export.formats.litert.reader import LiteRTModel, quiet_litert
from export.formats.litert.writer import LiteRT
from export.formats.protocols import ExportRequest
from tests.export.factory import CLASS_NAMES, MAX_ERROR, PREPROCESSING, Written, images_of, request_of, writer_of

pytest.importorskip("litert_torch")
pytestmark = pytest.mark.slow  # a conversion takes 5 to 20 s

NO_STRAYS = {"TRANSPOSE": 0, "CAST": 0, "QUANTIZE": 0, "DEQUANTIZE": 0}
PIXELS_NHWC = PREPROCESSING.model_copy(update={"layout": "NHWC", "input_range": (0.0, 255.0)})
FOR_AN_APP = {"preprocessing": PIXELS_NHWC, "output": "probabilities", "author": "Än Author", "license": "MIT"}


def check_contract(request: ExportRequest, model: LiteRTModel, images: int) -> None:
    """Outputs as PyTorch's, counts as the cost models', no transposes or casts but those of the request."""
    child, precision = request.description.child, request.description.precision
    inputs = request.model.as_input(images_of(child, images))
    with torch.no_grad():
        expected = torch.cat([request.model(image[None]) for image in inputs])
    found = model.run(inputs)
    assert list(found) == ["output"]
    assert found["output"].shape == expected.shape
    assert found["output"].dtype == torch.float32
    spread = float(expected.max() - expected.min())
    assert (expected - expected[:1]).abs().max() > 1e-3 * spread  # the input matters
    error = float((found["output"] - expected).abs().max()) / spread
    assert error <= MAX_ERROR[precision]
    assert (error > 5e-5) == (precision != "fp32")  # a lower precision was asked for, and shows
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)
    assert model.stray_operations() == NO_STRAYS
    assert ModelDescription.from_metadata(model.metadata(), "the file") == request.description


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The file of an order, converted once in this module."""
    return writer_of(LiteRT(), "litert", tmp_path_factory.mktemp("litert"))


def graph_of(path: Path) -> tuple[Any, Any, list[str]]:
    """The flatbuffer, its graph, and the names of the operations, by LiteRT's own tools."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(path.read_bytes())
    (graph,) = model.subgraphs
    return model, graph, [flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) for op in graph.operators]


@pytest.mark.parametrize(
    "fields",
    [{}, {"precision": "fp16"}, {"precision": "int8"}, FOR_AN_APP, {"precision": "int8", **FOR_AN_APP}],
    ids=["fp32", "fp16", "int8", "NHWC probabilities", "NHWC probabilities int8"],
)
def test_contract(fields: dict[str, object], written: Written) -> None:
    request, path = written(**fields)
    check_contract(request, LiteRTModel(path), 64)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_float32_ends_with_names_and_a_signature(precision: str, written: Written) -> None:
    _, path = written(precision=precision) if precision != "fp32" else written()
    with quiet_litert():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    for details, name, shape in (
        (interpreter.get_input_details(), "input", [1, 3, 16, 16]),
        (interpreter.get_output_details(), "output", [1, 5]),
    ):
        assert [(d["name"], d["shape"].tolist(), d["dtype"]) for d in details] == [(name, shape, np.float32)]
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["input"], "outputs": ["output"]}}
    image = images_of(count=1)
    by_signature = interpreter.get_signature_runner()(input=image.numpy())["output"]
    assert (by_signature == LiteRTModel(path).run(image)["output"].numpy()).all()


def test_only_an_nchw_input_is_transposed(written: Written) -> None:
    operations = [graph_of(path)[2] for _, path in (written(), written(**FOR_AN_APP))]
    assert [names.count("TRANSPOSE") for names in operations] == [1, 0]


def test_fp16_is_how_weights_are_stored(written: Written) -> None:
    model, graph, names = graph_of(written(precision="fp16")[1])
    for name, operation in zip(names, graph.operators, strict=True):
        if name == "DEQUANTIZE":
            half, full = graph.tensors[operation.inputs[0]], graph.tensors[operation.outputs[0]]
            assert (half.type, full.type) == (1, 0)  # FLOAT16, FLOAT32
            assert 2 * np.prod(half.shape) == len(model.buffers[half.buffer].data)
    products = sum(names.count(name) for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"))
    assert names.count("DEQUANTIZE") == products


def test_int8_is_for_every_weight_by_channel_and_every_activation(written: Written) -> None:
    _, graph, names = graph_of(written(precision="int8")[1])
    axis_of = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
    for name, operation in zip(names, graph.operators, strict=True):
        if name in axis_of:
            weight = graph.tensors[operation.inputs[1]]
            assert len(weight.quantization.scale) == weight.shape[axis_of[name]]
            assert not np.any(weight.quantization.zeroPoint)
        ends = {*graph.inputs, *graph.outputs}
        assert all(graph.tensors[index].type == 9 for index in {*operation.outputs} - ends)  # INT8
    assert (names[0], names[-1]) == ("QUANTIZE", "DEQUANTIZE")


def test_int8_covers_the_extremes_of_all_calibration_images(tmp_path: Path) -> None:
    request = request_of("litert", precision="int8")
    images = images_of(count=32) / 2
    images[20, 0, 3, 3] = 1.0  # averages of each image's extremes would end near 0.5
    LiteRT().write(request._replace(calibration=images), tmp_path / "net.tflite")
    _, graph, _ = graph_of(tmp_path / "net.tflite")
    quantized = graph.tensors[graph.operators[0].outputs[0]].quantization
    assert float(quantized.scale[0]) == pytest.approx(1 / 255, rel=0.01)


def test_int8_leaves_room_for_other_images_inside_squeeze_excite(written: Written) -> None:
    request, path = written(precision="int8")
    images = images_of()[:32]  # what it was calibrated on
    with torch.no_grad():
        before = request.model.network.blocks[0](images * request.model.scale + request.model.shift)
        block = request.model.network.blocks[1]
        means = block.depthwise(block.expand(before)).mean((2, 3))
        gates = block.se(block.depthwise(block.expand(before)))
    _, graph, names = graph_of(path)
    quantized = graph.tensors[graph.operators[names.index("MEAN")].outputs[0]].quantization
    extent = max(float(means.max()), 0.0) - min(float(means.min()), 0.0)
    assert float(quantized.scale[0]) * 255 == pytest.approx(2 * extent, rel=0.01)
    gate = next(
        op for name, op in zip(names, graph.operators, strict=True) if name == "MUL" and is_one_pixel(graph, op)
    )
    assert float(graph.tensors[gate.outputs[0]].quantization.scale[0]) * 255 == pytest.approx(
        float(gates.max()), rel=0.01
    )


def is_one_pixel(graph: Any, operation: Any) -> bool:
    return list(graph.tensors[operation.outputs[0]].shape[1:3]) == [1, 1]


def test_data_is_aligned_as_the_schema_says(written: Written) -> None:
    content = written()[1].read_bytes()
    with quiet_litert():
        from ai_edge_litert import schema_py_generated as schema
    root = schema.Model.GetRootAs(content, 0)
    found = 0
    for buffer in (root.Buffers(number) for number in range(root.BuffersLength())):
        if not buffer.DataIsNone():
            table = buffer._tab
            found += 1
            assert table.Vector(table.Offset(4)) % 16 == 0
    assert found > 20


def test_names_are_short_and_differ(written: Written) -> None:
    _, graph, _ = graph_of(written()[1])
    names = [tensor.name.decode() for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    assert not any("dmask_mobile." in name or "torch.nn" in name for name in names)
    assert any("InvertedResidual_1/SqueezeExcite_se/Conv2d_squeeze" in name for name in names)


def test_metadata_comes_back(written: Written) -> None:
    metadata = LiteRTModel(written(**FOR_AN_APP)[1]).metadata()
    assert json.loads(metadata["dmask.class_names"]) == list(CLASS_NAMES)
    assert metadata["tflite.name"] == "export-child"
    assert metadata["tflite.description"] == "export-child, fp32, 16 px"
    assert (metadata["tflite.author"], metadata["tflite.license"]) == ("Än Author", "MIT")
    assert metadata["labels.txt"] == "a\nb\nc\nd\né"


def test_labels_are_a_stored_zip_entry(written: Written) -> None:
    with zipfile.ZipFile(written()[1]) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(entry).decode() == "\n".join(CLASS_NAMES)


class Reader:
    """A flatbuffer's table, by field numbers: enough of the format's definition to read metadata with."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def place(self, field: int) -> int:
        table = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        size = struct.unpack_from("<H", self.data, table)[0]
        inside = struct.unpack_from("<H", self.data, table + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
        assert inside, f"no field {field}"
        return self.at + inside

    def byte(self, field: int) -> int:
        return self.data[self.place(field)]

    def table(self, field: int) -> Reader:
        place = self.place(field)
        return Reader(self.data, place + struct.unpack_from("<I", self.data, place)[0])

    def content(self, kind: str) -> list[Any]:
        number = struct.unpack_from("<I", self.data, self.at)[0]
        return list(struct.unpack_from(f"<{number}{kind}", self.data, self.at + 4))

    def vector(self, field: int, kind: str) -> list[Any]:
        return self.table(field).content(kind)

    def text(self, field: int) -> str:
        return bytes(self.vector(field, "B")).decode()

    def texts(self, field: int) -> list[str]:
        return [bytes(part.content("B")).decode() for part in self.tables(field)]

    def tables(self, field: int) -> list[Reader]:
        start = self.table(field).at + 4
        return [Reader(self.data, start + 4 * i + off) for i, off in enumerate(self.vector(field, "I"))]


@pytest.mark.parametrize(
    ("fields", "std", "largest", "axes", "scores"),
    [
        ({}, 255.0, 1.0, ["batch", "channel", "height", "width"], "logits (scores before softmax)"),
        (FOR_AN_APP, 1.0, 255.0, ["batch", "height", "width", "channel"], "probabilities"),
    ],
    ids=["plain", "for an app"],
)
def test_standard_metadata_by_the_schema(
    fields: dict[str, object], std: float, largest: float, axes: list[str], scores: str, written: Written
) -> None:
    """Field numbers, and numbers of unions' members and enumerations: tflite-support's metadata_schema.fbs."""
    model, _, _ = graph_of(written(**fields)[1])
    (data,) = [bytes(model.buffers[e.buffer].data) for e in model.metadata if e.name == b"TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    root = Reader(data, struct.unpack_from("<I", data)[0])
    assert root.text(7) == "1.0.0"
    (graph,) = root.tables(3)
    (given,), (result,) = graph.tables(2), graph.tables(3)
    assert given.text(0) == "input"
    assert given.text(1) == f"image, RGB, float32, 0 to {largest:g}; the graph normalizes it"
    assert given.texts(2) == axes
    assert given.table(3).byte(0) == 2  # ImageProperties
    assert given.table(3).table(1).byte(0) == 1  # RGB
    (unit,) = given.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).vector(0, "f"), unit.table(1).vector(1, "f")) == ([0.0], [std])
    assert (given.table(5).vector(0, "f"), given.table(5).vector(1, "f")) == ([largest], [0.0])
    assert (result.text(0), result.text(1)) == ("output", scores)
    assert result.table(3).byte(0) == 1  # FeatureProperties
    (labels,) = result.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def test_writing_again_gives_the_same_bytes_and_says_nothing(
    written: Written, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request, path = written(precision="int8")
    capfd.readouterr()
    LiteRT().write(request, tmp_path / "new" / "net.tflite")
    LiteRT().open(tmp_path / "new" / "net.tflite").run(images_of(count=1))
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "new" / "net.tflite").read_bytes() == path.read_bytes()


def test_a_failure_leaves_what_was_there(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(before := written()[1].read_bytes())
    monkeypatch.setattr("export.formats.litert.writer._converted", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LiteRT().write(request_of("litert"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a few bytes": lambda b: b[:10],
    "the first half": lambda b: b[: len(b) // 2],
    "all but the labels": lambda b: b[: b.index(b"PK\x03\x04")],
    "all but the last byte": lambda b: b[:-1],
    "noise": lambda _: random.Random(0).randbytes(5000),
    "noise with the identifier": lambda _: b"\x1c\0\0\0TFL3" + random.Random(0).randbytes(5000),
    "the identifier is another": lambda b: b[:4] + b"TFL9" + b[8:],
    "the root is outside": lambda b: struct.pack("<I", len(b) + 100) + b[4:],
    "zeros from 64 on": lambda b: b[:64] + bytes(len(b) - 64),
    "another kind of file": lambda _: zip_of("weights.bin"),
}


def zip_of(name: str, before: bytes = b"") -> bytes:
    file = io.BytesIO(before)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, "a\nb")
    return file.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_do_not_load(damage: str, written: Written, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(DAMAGES[damage](written()[1].read_bytes()))
    with pytest.raises(DmaskError, match=r"'.*net\.tflite' cannot be loaded as a LiteRT model: .*; export it again"):
        LiteRT().open(path)


def test_a_missing_file_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"net\.tflite' cannot be loaded as a LiteRT model: .*No such file"):
        LiteRT().open(tmp_path / "net.tflite")


def test_random_cuts_and_flips_never_crash(written: Written, tmp_path: Path) -> None:
    content, generator = written()[1].read_bytes(), random.Random(1)
    path, refused = tmp_path / "net.tflite", 0
    for number in range(40):
        damaged = bytearray(content)
        if number % 2:
            damaged = damaged[: generator.randrange(len(content))]
        else:
            for _ in range(8):
                damaged[generator.randrange(4096)] = generator.randrange(256)  # tables lie in front
        path.write_bytes(damaged)
        try:
            LiteRT().open(path).run(images_of(count=1))
        except DmaskError:
            refused += 1
    assert refused >= 20


def convert(module: torch.nn.Module, path: Path, *shapes: tuple[int, ...]) -> Path:
    """A file of ours around another graph."""
    with quiet_litert():
        import litert_torch

        content = litert_torch.convert(module.eval(), tuple(map(torch.zeros, shapes))).model_content()
        path.write_bytes(described(content, request_of("litert").description))
    return path


class Transposing(torch.nn.Module):
    """One transpose for the input, which NCHW makes necessary, and one too many."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.conv(x_NCHW).transpose(2, 3).relu()


class Product(torch.nn.Module):
    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return x_NCHW @ x_NCHW


def test_stray_transposes_are_counted(tmp_path: Path) -> None:
    model = LiteRTModel(convert(Transposing(), tmp_path / "net.tflite", (1, 3, 8, 8)))
    assert model.stray_operations()["TRANSPOSE"] >= 1
    assert model.counts() == (3 * 4 * 9 * 36, 3 * 4 * 9)


def test_products_of_other_kinds_are_not_counted_as_nothing(tmp_path: Path) -> None:
    model = LiteRTModel(convert(Product(), tmp_path / "net.tflite", (1, 3, 8, 8)))
    with pytest.raises(DmaskError, match="multiply-adds of BATCH_MATMUL are not known"):
        model.counts()


def test_every_output_comes_back_by_name(written: Written, tmp_path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    request, path = written()
    model, graph, names = graph_of(path)
    first = graph.operators[names.index("CONV_2D")].outputs[0]
    graph.outputs.append(first)
    graph.tensors[first].name = b"stem"
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    (tmp_path / "two.tflite").write_bytes(zip_of("labels.txt", content))
    found = LiteRTModel(tmp_path / "two.tflite").run(images_of(count=3))
    assert {name: tuple(values.shape) for name, values in found.items()} == {"output": (3, 5), "stem": (3, 16, 16, 8)}
    stem = request.model.network.blocks[0]
    images = images_of(count=3) * request.model.scale + request.model.shift
    with torch.no_grad():
        expected = stem.norm(stem.conv(images)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found["stem"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("int8", 0.1)])
def test_blocks_show_among_the_intermediates(precision: str, limit: float, written: Written) -> None:
    request, path = written(precision=precision) if precision != "fp32" else written()
    image = images_of(count=1)
    with torch.no_grad():
        stem = request.model.network.blocks[0](image * request.model.scale + request.model.shift)
        expected = request.model.network.blocks[1](stem).permute(0, 2, 3, 1)
    inside = [tensor for tensor in LiteRTModel(path).intermediates(image) if tensor.shape == expected.shape]
    assert min(float((tensor - expected).abs().max()) for tensor in inside) < limit * float(
        expected.max() - expected.min()
    )


@pytest.mark.parametrize(
    ("space", "precision"),
    [
        ("demo", "int8"),
        ("mobilenet_small", "fp16"),
        ("fbnetv2_f", "fp32"),
        ("fbnetv2_p", "fp16"),
        ("fbnetv2_l", "int8"),
    ],
)
def test_a_random_child_of_every_space(space: str, precision: str, tmp_path: Path) -> None:
    found = load_space(space)
    request = request_of("litert", found.child(found.sample(random.Random(7))), precision=precision)
    LiteRT().write(request, tmp_path / "net.tflite")
    check_contract(request, LiteRTModel(tmp_path / "net.tflite"), 4)


def test_a_published_network_and_its_sizes(tmp_path: Path) -> None:
    child, sizes = named_child("fbnetv2_f1"), []
    for precision in ("fp32", "fp16", "int8"):
        request, path = request_of("litert", child, precision=precision), tmp_path / f"{precision}.tflite"
        LiteRT().write(request, path)
        check_contract(request, LiteRTModel(path), 4)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]
