"""ncnn folders: written at every precision, opened, run, counted on their own files, damaged."""

from __future__ import annotations

import functools
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.named import named_child
from dmask_mobile.records.artifact import ModelDescription
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from export.formats.ncnn.graph import infer_shapes, read_layers, stored_bytes
from export.formats.ncnn.reader import NcnnModel
from export.formats.ncnn.writer import Ncnn
from export.formats.protocols import ExportRequest
from tests.export import factory
from tests.export.factory import CHILD, CLASS_NAMES, MAX_ERROR, Written, pixels, writer_of

pytest.importorskip("ncnn")
pytestmark = pytest.mark.slow  # together more than a minute; test_export.py has the contract

pytest.importorskip("pnnx")

FILES = ["description.json", "labels.txt", "model.bin", "model.param"]
POOLED = ChildSpec.model_validate(  # with MobileNetV3's last stage, which leaves one pixel for the head
    {
        **CHILD.model_dump(),
        "name": "pooled",
        "blocks": (
            *CHILD.blocks[:-2],
            BlockSpec(kind="pooled_inverted_residual", in_width=16, hidden_width=48, out_width=32, activation="hswish"),
            BlockSpec(kind="head", in_width=32, out_width=5),
        ),
    }
)

request_of = functools.partial(factory.request_of, "ncnn")


def check_contract(request: ExportRequest, path: Path, number: int) -> None:
    """Outputs as PyTorch's, counts as the cost models', no transposes or casts."""
    child, precision = request.description.child, request.description.precision
    model, images = Ncnn().open(path), pixels(request, number)
    with torch.no_grad():
        expected = request.model(images)
    found = model.run(images)
    assert list(found) == ["output"]
    assert found["output"].shape == expected.shape
    assert found["output"].dtype == torch.float32
    spread = float(expected.max() - expected.min())
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * spread  # the input matters
    error = float((found["output"] - expected).abs().max()) / spread
    assert error <= MAX_ERROR[precision]
    assert (error > 1e-5) == (precision == "fp16")  # weights were rounded, and it shows
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)
    assert model.stray_operations() == {"Permute": 0, "Cast": 0, "Packing": 0}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The folder of an order, converted once in this file."""
    return writer_of(Ncnn(), "ncnn", tmp_path_factory.mktemp("ncnn"))


@pytest.fixture
def folder(written: Written, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    path = tmp_path / "net.ncnn"
    path.mkdir()
    for name in FILES:
        (path / name).write_bytes((written()[1] / name).read_bytes())
    return path


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"precision": "fp16"},
        {"output": "probabilities", "largest": 255.0},
        {"precision": "fp16", "output": "probabilities", "largest": 255.0},
        {"child": POOLED},
    ],
    ids=lambda asked: ",".join(str(getattr(value, "name", value)) for value in asked.values()),
)
def test_contract(asked: dict[str, object], written: Written) -> None:
    request, path = written(**asked)
    check_contract(request, path, 64)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_contract_of_a_published_network(precision: str, tmp_path: Path) -> None:
    request = request_of(named_child("fbnetv2_f1"), precision=precision)
    Ncnn().write(request, tmp_path / "net.ncnn")
    check_contract(request, tmp_path / "net.ncnn", 4)


def test_one_pixel_is_not_pooled_again(written: Written) -> None:
    assert "Reshape" not in (written(child=POOLED)[1] / "model.param").read_text()


def test_only_what_ships_is_written_and_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = tmp_path / "exports" / "net-1.ncnn"
    request = request_of()
    before = {name: tensor.clone() for name, tensor in request.model.state_dict().items()}
    Ncnn().write(request, path)
    Ncnn().write(request, path)  # again, over the first
    assert sorted(file.name for file in path.iterdir()) == FILES
    assert list(path.parent.iterdir()) == [path]
    assert list(here.iterdir()) == []
    Ncnn().open(path).run(pixels(request, 1))
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(before[name], tensor) for name, tensor in request.model.state_dict().items())


def test_param_names_its_ends_and_the_input_shape(written: Written) -> None:
    lines = (written()[1] / "model.param").read_text().splitlines()
    assert lines[2] == "Input input 0 1 input 0=16 1=16 2=3"
    assert lines[-1].split()[5] == "output"


def test_metadata_comes_back(written: Written) -> None:
    request, path = written(output="probabilities", largest=255.0)
    metadata = Ncnn().open(path).metadata()
    assert ModelDescription.from_metadata(metadata, str(path)) == request.description
    assert metadata["labels.txt"] == "a\nb\nc\nd\né\n"
    assert (path / "labels.txt").read_text(encoding="utf-8").splitlines() == list(CLASS_NAMES)
    assert json.loads((path / "description.json").read_text()) == request.description.to_metadata()


def test_fp16_halves_the_weights(written: Written) -> None:
    sizes = [(written(precision=p)[1] / "model.bin").stat().st_size for p in ("fp32", "fp16")]
    assert sizes[0] - sizes[1] == 2 * Params().estimate(CHILD).value  # every layer has an even number of them


def test_intermediates_go_from_input_to_output(written: Written) -> None:
    request, path = written()
    model, image = Ncnn().open(path), pixels(request, 1)
    found = list(model.intermediates(image))
    assert torch.equal(found[0], image)
    torch.testing.assert_close(found[-1], model.run(image)["output"])
    with torch.no_grad():
        normalized = image * request.model.scale + request.model.shift
        first = request.model.network.blocks[0](normalized)
    assert any(tensor.shape == first.shape and (tensor - first).abs().max() < 1e-4 for tensor in found)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(DmaskError, match=rf"net.ncnn' cannot be loaded as an ncnn model: .*{name}.*; export it again"):
        Ncnn().open(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_truncated_file(name: str, share: float, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DmaskError, match=r"net.ncnn' cannot be loaded as an ncnn model: .*; export it again"):
        Ncnn().open(folder)


def test_every_truncation_of_the_param_file_between_lines(folder: Path) -> None:
    lines = (folder / "model.param").read_text().splitlines(keepends=True)
    for number in range(len(lines)):
        (folder / "model.param").write_text("".join(lines[:number]))
        with pytest.raises(DmaskError, match="cannot be loaded as an ncnn model"):
            Ncnn().open(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.param", "7767516\n", "begins with 7767517|not enough values"),
        ("model.param", "hello\n1 1\n", "begin with 7767517, this one begins with 'hello'"),
        ("model.param", "7767517\n1 1\nGRU g 0 1 output\n", "layer type 'GRU' is unknown; known types are BinaryOp"),
        ("model.param", "7767517\n1 1\nInput input 0 1 input 0=16 1=16 2=3\n", "no blobs 'input' and 'output'"),
        ("labels.txt", "a\nb\n", "labels.txt does not contain the class names"),
        ("description.json", "[]", "cannot be loaded as an ncnn model"),
    ],
)
def test_foreign_content(name: str, content: str, message: str, folder: Path) -> None:
    (folder / name).write_text(content)
    with pytest.raises(DmaskError, match=message):
        Ncnn().open(folder)


def test_foreign_path(tmp_path: Path) -> None:
    file = tmp_path / "net.ncnn"
    file.write_text("no folder")
    with pytest.raises(DmaskError, match="cannot be loaded as an ncnn model"):
        Ncnn().open(file)


def test_longer_bin_file_is_refused(folder: Path) -> None:
    with (folder / "model.bin").open("ab") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(DmaskError, match=r"model.bin must have \d+ bytes, found \d+"):
        Ncnn().open(folder)


def test_image_of_another_shape_is_refused(written: Written) -> None:
    with pytest.raises(DmaskError, match=r"needs images of shape \(3, 16, 16\), got \(3, 16, 15\)"):
        Ncnn().open(written()[1]).run(torch.zeros(1, 3, 16, 15))


def test_failing_pnnx_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pnnx

    program = tmp_path / "pnnx"
    program.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pnnx, "EXEC_PATH", os.fspath(program))
    with pytest.raises(RuntimeError, match="pnnx ended with status 3: no such thing"):
        Ncnn().write(request_of(), folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.ncnn", "pnnx"]
    assert isinstance(Ncnn().open(folder), NcnnModel)


def layers_of(*lines: str, blobs: int) -> str:
    return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines])


def test_shapes_and_counts_by_formula() -> None:
    """floor((n + 2p - d(k - 1) - 1) / s) + 1 for each side, ncnn's definition of a convolution."""
    layers = read_layers(
        layers_of(
            "Input input 0 1 input 0=20 1=17 2=3",
            "Convolution c 1 1 input a 0=8 1=3 11=5 3=2 13=3 4=1 14=2 5=1 6=360",
            "Permute p 1 1 a b 0=3",
            "Cast t 1 1 b c",
            "Pooling g 1 1 c d 0=1 4=1",
            "InnerProduct l 1 1 d output 0=7 2=42",
            blobs=6,
        )
    )
    assert infer_shapes(layers) == {
        "input": (3, 17, 20),
        "a": (8, 6, 10),  # (17 + 4 - 5) // 3 + 1, (20 + 2 - 3) // 2 + 1
        "b": (6, 10, 8),  # order 3 puts c, w, h where w, h, c were
        "c": (6, 10, 8),
        "d": (6,),
        "output": (7,),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Convolution c 1 1 input output 0=8 1=3 4=-233 6=216", "has padding by a rule"),
        ("Convolution c 1 1 input output 0=8 1=3 6=215", "must have 216 weights, found 215"),
        ("InnerProduct l 1 1 input output 0=2 2=5", "must have 96 weights, found 5"),
        ("Pooling g 1 1 input output 0=1 1=3", "is not global"),
    ],
)
def test_parameters_that_do_not_fit(line: str, message: str) -> None:
    layers = read_layers(layers_of("Input input 0 1 input 0=4 1=4 2=3", line, blobs=2))
    with pytest.raises(ValueError, match=message):
        infer_shapes(layers)


def test_shapes_that_do_not_broadcast() -> None:
    layers = read_layers(
        layers_of(
            "Input input 0 1 input 0=4 1=4 2=3", "MemoryData m 0 1 m 0=4", "BinaryOp b 2 1 input m output", blobs=3
        )
    )
    with pytest.raises(ValueError, match=r"BinaryOp 'b' on shapes \(3, 4, 4\) and \(4,\)"):
        infer_shapes(layers)


def test_stray_layers_are_counted(folder: Path) -> None:
    first, counts, given, *rest = (folder / "model.param").read_text().splitlines()
    layers, blobs = (int(count) + 2 for count in counts.split())
    moved = [
        "Permute p 1 1 given same 0=0",
        "Cast t 1 1 same input 0=1 1=1",
    ]
    lines = [first, f"{layers} {blobs}", given.replace(" input 0=", " given 0="), *moved, *rest]
    (folder / "model.param").write_text("\n".join(lines) + "\n")
    model = Ncnn().open(folder)
    assert model.stray_operations() == {"Permute": 1, "Cast": 1, "Packing": 0}
    assert model.counts() == (Macs().estimate(CHILD).value, Params().estimate(CHILD).value)


def test_unknown_way_of_storing_is_refused() -> None:
    text = layers_of("Input input 0 1 input 0=1 1=1 2=4", "InnerProduct l 1 1 input output 0=1 2=4", blobs=2)
    layers = read_layers(text)
    assert stored_bytes(layers, b"\0" * 20) == 20
    assert stored_bytes(layers, (0x01306B47).to_bytes(4, "little")) == 12
    with pytest.raises(ValueError, match="an unknown storage tag 0xd4b38"):
        stored_bytes(layers, (0x000D4B38).to_bytes(4, "little"))


@pytest.mark.parametrize("order", range(6))
def test_permuted_shapes_are_those_of_ncnn(order: int, tmp_path: Path) -> None:
    import ncnn

    text = layers_of("Input input 0 1 input 0=5 1=4 2=3", f"Permute p 1 1 input output 0={order}", blobs=2) + "\n"
    (tmp_path / "empty.bin").touch()
    net = ncnn.Net()
    assert net.load_param_mem(text) == 0
    assert net.load_model(str(tmp_path / "empty.bin")) == 0
    extractor = net.create_extractor()
    extractor.input("input", ncnn.Mat(np.zeros((3, 4, 5), np.float32)).clone())
    assert np.array(extractor.extract("output")[1]).shape == infer_shapes(read_layers(text))["output"]
