"""ExecuTorch programs: written at every precision, opened, run, counted on their own files, damaged."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from pathlib import Path

import pytest
import torch

from dmask_mobile import api
from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.data.load import load_data
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.nets.named import named_child
from dmask_mobile.records.artifact import ModelDescription
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.run import RunFolder
from dmask_mobile.training.checkpoint import load_weights
from dmask_mobile.training.train import TrainSettings
from export.deployable import Deployable
from export.formats.executorch import writer as to_executorch
from export.formats.executorch.reader import ExecuTorchModel
from export.formats.executorch.writer import ExecuTorch
from export.formats.protocols import ExportRequest
from export.verification.numerics import compare
from tests.export import factory
from tests.export.factory import MAX_ERROR, Written, pixels, writer_of

pytest.importorskip("executorch")
pytestmark = pytest.mark.slow  # a conversion takes 5 to 20 s


CLEAN = {"XNNStaticTranspose": 0, "XNNConvert": 0}
CLEAN_INT8 = {**CLEAN, "float XNNConv2d": 0, "float XNNDepthwiseConv2d": 0, "float XNNFullyConnected": 0}
SHORT = SearchSpace.model_validate(  # int8 takes four times as long to lower
    {
        "name": "short",
        "classes": 5,
        "input": {"resolutions": [16]},
        "stem": {"widths": [8], "stride": 2},
        "stages": [{"blocks": 1, "widths": [8], "expansions": [2], "squeeze_excite": [True], "activation": "hswish"}],
        "last": {"widths": [16]},
    }
)


def short_child() -> ChildSpec:
    return SHORT.child(SHORT.largest())


request_of = functools.partial(factory.request_of, "executorch")


def check_contract(request: ExportRequest, path: Path, number: int) -> None:
    """Outputs as PyTorch's, counts as the cost models', nothing outside the delegate, no transposes or casts."""
    child, precision = request.description.child, request.description.precision
    model, images = ExecuTorch().open(path), pixels(request, number)
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
    assert (error > 1e-5) == (precision != "fp32")  # a lower precision was asked for, and shows
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)
    assert model.stray_operations() == (CLEAN_INT8 if precision == "int8" else CLEAN)
    assert model.intermediates(images[:1]) is None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The file of an order, converted once in this file."""
    return writer_of(ExecuTorch(), "executorch", tmp_path_factory.mktemp("executorch"))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"child": short_child(), "output": "probabilities", "largest": 255.0},
        {"precision": "fp16", "output": "probabilities", "largest": 255.0},
        {"precision": "int8", "child": short_child(), "output": "probabilities", "largest": 255.0},
    ],
    ids=lambda asked: ",".join(str(getattr(value, "name", value)) for value in asked.values()),
)
def test_contract(asked: dict[str, object], written: Written) -> None:
    request, path = written(**asked)
    check_contract(request, path, 64)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_contract_of_a_published_network(precision: str, tmp_path: Path) -> None:
    request = request_of(named_child("fbnetv2_f1"), precision=precision)
    ExecuTorch().write(request, tmp_path / "net.pte")
    check_contract(request, tmp_path / "net.pte", 4)


def test_int8_of_a_trained_network_agrees_with_fp32(tmp_path: Path) -> None:
    """By the bounds of verification, which training makes meaningful: 8 epochs on glyphs give over 90%."""
    space = load_space("demo")
    run = RunFolder(tmp_path / "run")
    api.start_run(space.child(space.smallest()), run.path)
    api.train(run.path, data="glyphs", settings=TrainSettings(epochs=8))
    child, record, data = run.child(), run.record(), load_data("glyphs", 32)
    network = build(child)
    load_weights(run.weights_path, network, child.digest())
    model = Deployable(network, record.preprocessing)
    description = ModelDescription(
        model_format="executorch", precision="int8", child=child, child_digest=child.digest(), weights_digest="0" * 64,
        preprocessing=record.preprocessing, class_names=record.class_names,
    )  # fmt: skip
    chosen = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[:128]
    calibration = model.as_input(data.train.pixels(chosen).float() / 255)
    ExecuTorch().write(ExportRequest(model, description, calibration), tmp_path / "net.pte")
    images = model.as_input(data.val.pixels(torch.arange(500)).float() / 255)
    with torch.no_grad():
        expected = model(images)
    found = ExecuTorch().open(tmp_path / "net.pte").run(images)["output"]
    numerics = compare(expected, found, data.val.labels[:500])
    assert numerics.reference_accuracy > 0.9
    assert numerics.top1_agreement >= 0.97
    assert numerics.cosine >= 0.97
    assert numerics.max_error <= 0.25


def test_folding_changes_nothing_and_leaves_the_model_alone() -> None:
    request = request_of()
    before = {name: tensor.clone() for name, tensor in request.model.state_dict().items()}
    folded = to_executorch.folded(request.model)
    kinds = {type(part) for part in folded.modules()}
    assert not kinds & {torch.nn.BatchNorm2d, torch.nn.Hardsigmoid}
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels(request, 8)), request.model(pixels(request, 8)), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in request.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in request.model.parameters())


def test_what_folding_avoids_is_stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a hard sigmoid two constants are cast outside the delegate, and two transposes are inside."""
    monkeypatch.setattr(to_executorch, "folded", copy.deepcopy)
    ExecuTorch().write(request_of(short_child()), tmp_path / "net.pte")
    model = ExecuTorch().open(tmp_path / "net.pte")
    assert model.stray_operations() == {
        "dim_order_ops::_to_dim_order_copy": 2, "XNNStaticTranspose": 2, "XNNConvert": 0,
    }  # fmt: skip
    child = short_child()
    assert model.counts() == (Macs().estimate(child).value, Params().estimate(child).value)


def test_a_layer_that_int8_left_out_is_stray(written: Written) -> None:
    model = ExecuTorch().open(written(precision="int8", child=short_child(), output="probabilities", largest=255.0)[1])
    assert isinstance(model, ExecuTorchModel)
    (graph,) = model._graphs
    node = next(fields for kind, fields in graph._nodes() if kind == "XNNDepthwiseConv2d")
    graph._tensor(node["filter_id"])["datatype"] = "xnn_datatype_fp32"
    assert model.stray_operations() == {**CLEAN_INT8, "float XNNDepthwiseConv2d": 1}


def test_a_repeated_conversion_is_stray(written: Written) -> None:
    model = ExecuTorch().open(written(precision="int8", child=short_child(), output="probabilities", largest=255.0)[1])
    assert isinstance(model, ExecuTorchModel)
    (graph,) = model._graphs
    conversions = [fields for kind, fields in graph._nodes() if kind == "XNNConvert"]
    conversions[1]["input_id"] = conversions[0]["output_id"]
    assert model.stray_operations()["XNNConvert"] == 1


def test_int8_quantizes_once_and_dequantizes_once(written: Written) -> None:
    """Besides around each hswish, which XNNPACK has in float only: stem, expansion, depthwise, squeeze, last."""
    model = ExecuTorch().open(written(precision="int8", child=short_child(), output="probabilities", largest=255.0)[1])
    assert isinstance(model, ExecuTorchModel)
    kinds = [kind for graph in model._graphs for kind, _ in graph._nodes()]
    assert kinds[0] == "XNNConvert"
    assert kinds[-2:] == ["XNNConvert", "XNNSoftmax"]
    assert kinds.count("XNNHardswish") == 5


def test_operations_outside_the_delegate_are_not_counted(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ExecuTorch().open(written()[1])
    monkeypatch.setattr(ExecuTorchModel, "_kernel_calls", lambda _: iter([("aten::convolution", [1, 2])]))
    with pytest.raises(DmaskError, match="multiply-adds of aten::convolution outside the delegate are not known"):
        model.counts()
    assert model.stray_operations() == {**CLEAN, "aten::convolution": 1}


def test_metadata_comes_back(written: Written) -> None:
    request, path = written(child=short_child(), output="probabilities", largest=255.0)
    metadata = ExecuTorch().open(path).metadata()
    assert ModelDescription.from_metadata(metadata, str(path)) == request.description
    assert metadata == request.description.to_metadata()


def test_the_runtime_reads_metadata_too(written: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(written()[1])
    assert program.load_method("dmask.class_names").execute([]) == ['["a", "b", "c", "d", "\\u00e9"]']


def test_conversion_and_running_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.root.manager.disable
    request = request_of(short_child())
    ExecuTorch().write(request, tmp_path / "new" / "net.pte")
    ExecuTorch().open(tmp_path / "new" / "net.pte").run(pixels(request, 2))
    assert capfd.readouterr() == ("", "")
    assert (root.handlers, root.level, logging.root.manager.disable) == (handlers, level, disabled)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["net.pte"]


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(b"before")
    monkeypatch.setattr(to_executorch, "_lowered", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ExecuTorch().write(request_of(), path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pte"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99, 0.9999])
def test_truncated_file(share: float, written: Written, tmp_path: Path) -> None:
    content = written()[1].read_bytes()
    path = tmp_path / "net.pte"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DmaskError, match=r"net.pte' cannot be loaded as an ExecuTorch program: .*; export it again"):
        ExecuTorch().open(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1c\x00\x00\x00TFL3" + b"\0" * 200, b"PK\x03\x04" * 100])
def test_foreign_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pte"
    path.write_bytes(content)
    with pytest.raises(DmaskError, match="cannot be loaded as an ExecuTorch program: it does not begin like one"):
        ExecuTorch().open(path)


def test_damaged_inside(written: Written, tmp_path: Path) -> None:
    """The header is whole, what it leads to is not."""
    content = written()[1].read_bytes()
    path = tmp_path / "net.pte"
    path.write_bytes(content[:64] + b"\xff" * (len(content) - 64))
    with pytest.raises(DmaskError, match="cannot be loaded as an ExecuTorch program"):
        ExecuTorch().open(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"cannot be loaded as an ExecuTorch program: .*No such file"):
        ExecuTorch().open(tmp_path / "net.pte")
