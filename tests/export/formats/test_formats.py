"""The contract of all formats."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.named import named_child, named_children
from dmask_mobile.records.artifact import Artifact, ModelDescription, Preprocessing, hash_path, size_of_path
from dmask_mobile.records.space import load_space
from export.deployable import Deployable
from export.formats.registry import FORMATS, format_named, format_of
from export.verification.numerics import LIMITS, compare
from export.write import artifact_of, check_calibration, check_request, export_child
from tests.export.factory import CHILD, described, exported, images_of, imported_space, reference, telling_network
from tests.export.formats_at import ALL_FORMATS, ALL_VARIANTS

SHIPPED_SPACES = ("demo", "mobilenet_small", "fbnetv2_f", "fbnetv2_p", "fbnetv2_l")


def scores_of(
    artifact: Artifact, folder: Path, images: torch.Tensor, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores in PyTorch and of the artifact."""
    deployable = Deployable(telling_network(artifact.child, seed), artifact.preprocessing, artifact.output)
    given = deployable.as_input(images)
    with torch.no_grad():
        expected = deployable(given)
    (found,) = FORMATS[artifact.model_format].open(folder / artifact.path).run(given).values()
    return expected, found


def assert_contract(artifact: Artifact, folder: Path, images: int = 8) -> None:
    """Same scores as PyTorch, same counts as the cost models, nothing stray, a description that reads back."""
    child = artifact.child
    expected, found = scores_of(artifact, folder, images_of(child, images))
    labels = torch.zeros(images, dtype=torch.int64)
    assert (expected[0] - expected[1]).abs().max() > 0.01 * (expected.max() - expected.min())  # the input matters
    assert compare(expected, found, labels).max_error <= LIMITS[artifact.precision].max_error
    model = FORMATS[artifact.model_format].open(folder / artifact.path)
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)
    assert sum(model.stray_operations().values()) == 0, model.stray_operations()
    assert ModelDescription.from_metadata(model.metadata(), "file") == artifact.description()


@pytest.mark.parametrize(("format_name", "precision"), ALL_VARIANTS)
def test_contract_of_every_format(format_name: str, precision: str, tmp_path: Path) -> None:
    artifact = exported(format_name, tmp_path, precision=precision, license="MIT", author="Ada", accuracy=0.5)
    assert_contract(artifact, tmp_path, 16)
    path = tmp_path / artifact.path
    assert (artifact.sha256, artifact.size_bytes) == (hash_path(path), size_of_path(path))
    assert artifact_of(path, artifact.description()).sha256 == artifact.sha256
    assert format_of(path) is FORMATS[artifact.model_format]
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "golden", *(p.name for p in tmp_path.glob("*.json"))}


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_the_parts_of_imported_networks(format_name: str, padding: str, tmp_path: Path) -> None:
    space = imported_space(padding)
    assert_contract(exported(format_name, tmp_path, space.child(space.largest())), tmp_path)


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_raw_pixels_and_probabilities(format_name: str, tmp_path: Path) -> None:
    pixels = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), input_range=(0, 255))
    artifact = exported(format_name, tmp_path, preprocessing=pixels, output="probabilities")
    expected, found = scores_of(artifact, tmp_path, images_of(count=8))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(8), rtol=0, atol=1e-5)
    plain = Deployable(telling_network(CHILD), pixels.model_copy(update={"input_range": (0.0, 1.0)}))
    with torch.no_grad():
        torch.testing.assert_close(expected, plain(images_of(count=8)).softmax(1), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", [name for name, found in FORMATS.items() if "NHWC" in found.layouts])
def test_channels_last_input(format_name: str, tmp_path: Path) -> None:
    layout = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), layout="NHWC")
    assert_contract(exported(format_name, tmp_path, preprocessing=layout), tmp_path)


@pytest.mark.parametrize("format_name", [name for name, found in FORMATS.items() if found.dynamic_batch])
def test_open_batch(format_name: str, tmp_path: Path) -> None:
    artifact = exported(format_name, tmp_path, batch=None)
    assert_contract(artifact, tmp_path)
    if format_name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / artifact.path)
        assert session.run(None, {"input": images_of(count=3).numpy()})[0].shape == (3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("space", SHIPPED_SPACES)
@pytest.mark.parametrize("format_name", FORMATS)
def test_a_child_of_every_space_in_every_format(format_name: str, space: str, tmp_path: Path) -> None:
    found = load_space(space)
    child = found.child(found.sample(random.Random(5)))
    assert_contract(exported(format_name, tmp_path, child), tmp_path, 2)


@pytest.mark.parametrize("name", named_children())
def test_published_networks_in_onnx(name: str, tmp_path: Path) -> None:
    assert_contract(exported("onnx", tmp_path, named_child(name)), tmp_path, 2)


def test_onnx_has_no_batch_norm_and_the_customary_keys(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(tmp_path / exported("onnx", tmp_path).path)
    assert model.opset_import[0].version >= 17
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    properties = {prop.key: prop.value for prop in model.metadata_props}
    assert properties["Image.BitmapPixelFormat"] == "Rgb8"
    assert properties["Image.NominalPixelRange"] == "Normalized_0_1"


def test_normalization_is_that_of_the_images() -> None:
    model = Deployable(torch.nn.Identity(), Preprocessing(mean=(0.5, 0.25), std=(0.5, 2.0)))
    image = torch.tensor([1.0, 1.25]).view(1, 2, 1, 1)
    assert model(image).flatten().tolist() == [1.0, 0.5]


def test_format_whose_package_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("coremltools", "ncnn"):
        monkeypatch.setitem(sys.modules, package, None)  # what Python itself does for a blocked import
    with pytest.raises(DmaskError, match=r"format coreml needs the package coremltools.*; pip install coremltools"):
        format_named("coreml")
    with pytest.raises(DmaskError, match=r"needs the package ncnn.*; pip install 'dmask-mobile\[ncnn\]'"):
        format_named("ncnn")


@pytest.mark.parametrize(
    ("format_name", "fields", "message"),
    [
        ("ncnn", {"precision": "int8"}, "format ncnn has no int8: .*; choose another precision"),
        ("coreml", {"preprocessing": {"mean": [0], "std": [1], "layout": "NHWC"}}, "coreml takes its input as NCHW"),
        ("ncnn", {"batch": None}, "ncnn has a fixed batch of 1"),
    ],
)
def test_what_a_format_lacks_is_said_before_anything_is_converted(
    format_name: str, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(DmaskError, match=message):
        check_request(described(format_name, **fields))


@pytest.mark.parametrize("images", [None, torch.zeros(15, 3, 16, 16)])
def test_int8_needs_images(images: torch.Tensor | None) -> None:
    count = 0 if images is None else 15
    with pytest.raises(
        DmaskError, match=f"calibration of int8 needs at least 16 real images, got {count}; give --data"
    ):
        check_calibration("int8", images)
    check_calibration("fp16", images)


def test_unknown_format() -> None:
    with pytest.raises(DmaskError, match="no export format 'tflite'; choose from onnx, coreml, litert"):
        format_named("tflite")


def test_other_files_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DmaskError, match=r"is not an exported model; models end in .onnx, .mlpackage, .tflite"):
        format_of(tmp_path / "a.txt")
    with pytest.raises(DmaskError, match="no file"):
        format_of(tmp_path / "absent.onnx")


def test_a_converter_that_fails_leaves_nothing_and_says_what_it_said(tmp_path: Path) -> None:
    class Unconvertible(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such\noperator")

    with pytest.raises(DmaskError, match="onnx fp32 cannot be converted: RuntimeError: no such operator"):
        export_child(Unconvertible(), described("onnx"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_compare_counts_nan_as_infinitely_wrong_and_refuses_nothing() -> None:
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([1, 1])
    same = compare(scores, scores, labels)
    assert (same.max_error, same.mean_error, same.cosine, same.snr_db) == (0.0, 0.0, pytest.approx(1.0), float("inf"))
    assert (same.top1_agreement, same.accuracy, same.reference_accuracy) == (1.0, 0.5, 0.5)
    shifted = compare(scores, scores + 0.25, labels)
    assert (shifted.max_error, shifted.mean_error) == (0.25, 0.25)
    assert shifted.snr_db == pytest.approx(10 * torch.tensor(2 / (4 * 0.25**2)).log10().item())
    for bad in (torch.nan, torch.inf):
        broken = compare(scores, scores.clone().fill_(bad), labels)
        assert (broken.max_error, broken.cosine, broken.snr_db) == (float("inf"), -1.0, -float("inf"))
    with pytest.raises(DmaskError, match="no outputs to compare"):
        compare(scores[:0], scores[:0], labels[:0])
    with pytest.raises(DmaskError, match=r"must have the shape \(2, 2\), found \(2, 1\)"):
        compare(scores, scores[:, :1], labels)


def test_telling_network_depends_on_its_seed() -> None:
    weights = [telling_network(CHILD, seed).blocks[-1].linear.weight for seed in (0, 1)]
    assert not torch.equal(*weights)


def test_reference_computes_logits_once_and_softmax_of_them() -> None:
    expected = reference(images=4)
    assert expected.scores("logits") is expected.logits
    assert torch.equal(expected.scores("probabilities"), expected.logits.softmax(1))
