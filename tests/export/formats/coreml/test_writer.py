"""Core ML packages: written at every precision, opened, evaluated from their own files, damaged."""

from __future__ import annotations

import functools
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.named import named_child, named_children
from dmask_mobile.records.artifact import ModelDescription
from dmask_mobile.records.space import load_space
from export.formats.coreml.reader import CoreMLModel, quiet_coremltools
from export.formats.coreml.writer import LARGEST_BATCH, CoreML
from export.formats.protocols import ExportRequest
from tests.export import factory
from tests.export.factory import CHILD, CLASS_NAMES, MAX_ERROR, Written, pixels, writer_of

pytestmark = pytest.mark.slow  # together more than a minute; test_export.py has the contract

FLOAT32 = 65568  # ArrayFeatureType


request_of = functools.partial(factory.request_of, "coreml")


def check_contract(request: ExportRequest, model: CoreMLModel, number: int) -> None:
    """Outputs as PyTorch's, counts as the cost models', no transposes or casts but those of the request."""
    child, precision = request.description.child, request.description.precision
    images = pixels(request, number)
    with torch.no_grad():
        expected = request.model(images)
    found = model.run(images)
    assert list(found) == ["output"]
    assert found["output"].shape == expected.shape
    assert found["output"].dtype == torch.float32
    spread = float(expected.max() - expected.min())
    assert spread > 0.1
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * spread  # the input matters
    error = float((found["output"] - expected).abs().max()) / spread
    assert error <= MAX_ERROR[precision]
    assert (error > 1e-5) == (precision != "fp32")  # a lower precision was asked for, and shows
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)
    assert model.stray_operations() == {"transpose": 0, "cast": 0}
    assert model.metadata()["dmask.child_digest"] == child.digest()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The package of an order, converted once in this file."""
    return writer_of(CoreML(), "coreml", tmp_path_factory.mktemp("coreml"))


CASES = [
    {},
    {"precision": "fp16"},
    {"precision": "int8"},
    {"output": "probabilities", "largest": 255.0, "batch": None},
    {"precision": "fp16", "output": "probabilities", "largest": 255.0},
    {"precision": "fp16", "batch": None},
    {"precision": "int8", "output": "probabilities", "batch": None},
]


@pytest.mark.parametrize("asked", CASES, ids=str)
def test_contract(asked: dict[str, object], written: Written) -> None:
    request, path = written(**asked)
    model = CoreML().open(path)
    assert isinstance(model, CoreMLModel)
    check_contract(request, model, 64)


@pytest.mark.parametrize("asked", [{}, {"precision": "fp16", "batch": None}], ids=str)
def test_one_image_or_many_give_the_same(asked: dict[str, object], written: Written) -> None:
    request, path = written(**asked)
    model, images = CoreML().open(path), pixels(request, 9)
    one_by_one = torch.cat([model.run(image[None])["output"] for image in images])
    limit = 1e-5 if request.description.precision == "fp32" else 2e-3  # sums in another order round to other halves
    spread = float(one_by_one.max() - one_by_one.min())
    torch.testing.assert_close(model.run(images)["output"], one_by_one, rtol=0, atol=limit * spread)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_is_an_mlprogram_with_float32_in_and_out(precision: str, written: Written) -> None:
    spec = read_spec(written(precision=precision)[1])
    assert spec.WhichOneof("Type") == "mlProgram"
    assert [f.type.multiArrayType.dataType for f in (*spec.description.input, *spec.description.output)] == [
        FLOAT32
    ] * 2
    assert list(spec.description.input[0].type.multiArrayType.shape) == [1, 3, 16, 16]


def test_open_batch_is_a_range_from_1(written: Written) -> None:
    (given,) = read_spec(written(precision="fp16", batch=None)[1]).description.input
    sizes = [(size.lowerBound, size.upperBound) for size in given.type.multiArrayType.shapeRange.sizeRanges]
    assert sizes == [(1, LARGEST_BATCH), (3, 3), (16, 16), (16, 16)]


def test_every_weight_is_int8_with_a_scale_for_each_channel(written: Written) -> None:
    _, path = written(precision="int8")
    operations = list(CoreMLModel(path)._program.function.operations)
    number = Counter(operation.op_type for operation in operations)
    assert number["constexpr_affine_dequantize"] == number["conv"] + number["linear"]
    for operation in operations:
        if operation.op_type == "constexpr_affine_dequantize":
            values, scale = operation.inputs["quantized_data"].val, operation.inputs["scale"].val
            assert values.dtype == np.int8
            assert scale.shape == values.shape[:1]
            assert not operation.inputs["zero_point"].val.any()


def test_sizes_shrink_with_the_precision(tmp_path: Path) -> None:
    child = load_space("demo").child(load_space("demo").largest())
    sizes = []
    for precision in ("fp32", "fp16", "int8"):
        path = tmp_path / f"{precision}.mlpackage"
        CoreML().write(request_of(child, precision=precision), path)
        sizes.append((path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]


def test_metadata_comes_back(written: Written) -> None:
    request, path = written(output="probabilities", largest=255.0, batch=None)
    metadata = CoreML().open(path).metadata()
    assert ModelDescription.from_metadata(metadata, str(path)) == request.description
    assert metadata["com.apple.coreml.model.preview.type"] == "imageClassifier"
    preview = json.loads(metadata["com.apple.coreml.model.preview.parameters"])
    assert preview == {"labels": list(CLASS_NAMES), "colorSpace": "RGB"}


def test_description_is_for_people_too(written: Written) -> None:
    description = read_spec(written(output="probabilities", largest=255.0, batch=None)[1]).description
    assert (description.metadata.author, description.metadata.license) == ("An Author", "MIT")
    assert description.metadata.shortDescription == f"{CHILD.name}, fp32, 16 px"
    assert "(N, 3, 16, 16), NCHW, float32, RGB, values 0 to 255" in description.input[0].shortDescription
    assert description.output[0].shortDescription.startswith("(N, 5), float32: probabilities")
    logits = read_spec(written()[1]).description
    assert "(1, 3, 16, 16), NCHW, float32, RGB, values 0 to 1" in logits.input[0].shortDescription
    assert logits.output[0].shortDescription.startswith("(1, 5), float32: logits")


def test_writing_again_replaces_and_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "net.mlpackage"
    CoreML().write(request_of(), path)
    CoreML().write(request_of(precision="fp16"), path)
    assert CoreML().open(path).metadata()["dmask.precision"] == "fp16"
    with quiet_coremltools() as coremltools:
        monkeypatch.setattr(coremltools, "convert", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        CoreML().write(request_of(), path)
    assert CoreML().open(path).metadata()["dmask.precision"] == "fp16"
    assert list(path.parent.iterdir()) == [path]


def test_conversion_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    CoreML().write(request_of(precision="int8"), tmp_path / "net.mlpackage")
    CoreML().open(tmp_path / "net.mlpackage")
    assert capfd.readouterr() == ("", "")


WEIGHTS, PROGRAM = Path("Data/com.apple.CoreML/weights/weight.bin"), Path("Data/com.apple.CoreML/model.mlmodel")


def truncate(file: Path, by: int) -> None:
    file.write_bytes(file.read_bytes()[:-by])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights lack one byte": lambda p: truncate(p / WEIGHTS, 1),
    "weights lack most": lambda p: truncate(p / WEIGHTS, (p / WEIGHTS).stat().st_size - 100),
    "weights are empty": lambda p: (p / WEIGHTS).write_bytes(b""),
    "weights are missing": lambda p: (p / WEIGHTS).unlink(),
    "program lacks one byte": lambda p: truncate(p / PROGRAM, 1),
    "program lacks most": lambda p: truncate(p / PROGRAM, (p / PROGRAM).stat().st_size - 100),
    "program is empty": lambda p: (p / PROGRAM).write_bytes(b""),
    "program is missing": lambda p: (p / PROGRAM).unlink(),
    "manifest is missing": lambda p: (p / "Manifest.json").unlink(),
    "manifest is no JSON": lambda p: (p / "Manifest.json").write_text("{"),
    "folder is empty": lambda p: (shutil.rmtree(p), p.mkdir()),
    "a file": lambda p: (shutil.rmtree(p), p.write_text("x")),
    "nothing there": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_damaged_packages_do_not_load(damage: str, precision: str, written: Written, tmp_path: Path) -> None:
    path = tmp_path / "net.mlpackage"
    shutil.copytree(written(precision=precision)[1], path)
    DAMAGES[damage](path)
    with pytest.raises(
        DmaskError, match=r"'.*net\.mlpackage' cannot be loaded as a Core ML package: .*; export it again"
    ):
        CoreML().open(path)


class Transposing(torch.nn.Module):
    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.relu(x_NCHW.permute(0, 2, 3, 1))


class TwoOutputs(torch.nn.Module):
    def forward(self, x_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x_NCHW), x_NCHW + 1


class Tanh(torch.nn.Module):
    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x_NCHW)


def convert(module: torch.nn.Module, path: Path, outputs: tuple[str, ...] = ("output",), inputs: int = 1) -> Path:
    """A package by coremltools' own defaults, float16 at its ends too."""
    with quiet_coremltools() as coremltools:
        images = (torch.zeros(1, 3, 4, 4),) * inputs
        coremltools.convert(
            torch.jit.trace(module, images),
            convert_to="mlprogram",
            inputs=[coremltools.TensorType(f"input{i}", shape=(1, 3, 4, 4)) for i in range(inputs)],
            outputs=[coremltools.TensorType(name) for name in outputs],
            compute_precision=coremltools.precision.FLOAT32,
        ).save(str(path))
    return path


def read_spec(path: Path):  # type: ignore[no-untyped-def]
    with quiet_coremltools() as coremltools:
        return coremltools.utils.load_spec(str(path))


def test_stray_transposes_are_counted(tmp_path: Path) -> None:
    model = CoreMLModel(convert(Transposing(), tmp_path / "t.mlpackage"))
    assert model.stray_operations() == {"transpose": 1, "cast": 0}
    assert model.counts() == (0, 0)


def test_every_output_comes_back_by_name(tmp_path: Path) -> None:
    model = CoreMLModel(convert(TwoOutputs(), tmp_path / "two.mlpackage", ("positive", "more")))
    images = torch.randn(3, 3, 4, 4)
    found = model.run(images)
    assert sorted(found) == ["more", "positive"]
    torch.testing.assert_close(found["positive"], images.relu())
    torch.testing.assert_close(found["more"], images + 1)


def test_unknown_operation_is_an_error_when_run_and_when_counted(tmp_path: Path) -> None:
    model = CoreMLModel(convert(Tanh(), tmp_path / "tanh.mlpackage"))
    with pytest.raises(DmaskError, match="operation 'tanh' is not supported by the evaluator, which supports add, "):
        model.run(torch.zeros(2, 3, 4, 4))
    with pytest.raises(DmaskError, match="multiply-adds of Core ML operation 'tanh' are not known"):
        model.counts()


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    path = convert(Sum(), tmp_path / "sum.mlpackage", inputs=2)
    with pytest.raises(
        DmaskError, match="cannot be loaded as a Core ML package: a program must have one input, found 2"
    ):
        CoreMLModel(path)


def test_blocks_show_among_the_intermediates(written: Written) -> None:
    request, path = written()
    image = pixels(request, 1)
    with torch.no_grad():
        expected = request.model.network.blocks[0](image * request.model.scale + request.model.shift)
    inside = [t for t in CoreMLModel(path).intermediates(image) if t.shape == expected.shape]
    assert min(float((t - expected).abs().max()) for t in inside) < 1e-5


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML predicts here")
def test_core_ml_itself_does_not_predict_off_a_mac(written: Written) -> None:
    request, path = written()
    assert CoreMLModel(path).predict(pixels(request, 1)) is None


@pytest.mark.parametrize(("precision", "units"), [("fp32", "CPU_ONLY"), ("fp16", "ALL"), ("int8", "CPU_ONLY")])
def test_prediction_on_a_mac_is_by_core_ml(
    precision: str, units: str, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, path = written(precision=precision)
    asked = []

    class OnAMac:
        def __init__(self, package: str, compute_units: object) -> None:
            asked.append((package, compute_units.name))  # type: ignore[attr-defined]

        def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            assert inputs["input"].shape == (1, 3, 16, 16)
            return {"output": inputs["input"].mean((2, 3))}

    model, images = CoreMLModel(path), pixels(request, 3)
    with quiet_coremltools() as coremltools:
        monkeypatch.setattr(coremltools.models, "MLModel", OnAMac)
    monkeypatch.setattr(sys, "platform", "darwin")
    found = model.predict(images)
    monkeypatch.undo()
    assert asked == [(str(path), units)]
    torch.testing.assert_close(found, {"output": images.mean((2, 3))})


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
    request = request_of(found.child(found.sample(random.Random(7))), precision=precision)
    CoreML().write(request, tmp_path / "net.mlpackage")
    check_contract(request, CoreMLModel(tmp_path / "net.mlpackage"), 4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", named_children())
def test_published_networks(name: str, precision: str, tmp_path: Path) -> None:
    request = request_of(named_child(name), precision=precision)
    CoreML().write(request, tmp_path / "net.mlpackage")
    check_contract(request, CoreMLModel(tmp_path / "net.mlpackage"), 4)
