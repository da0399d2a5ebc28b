"""Weights of a user's file: by name, by order, and what is refused."""

from __future__ import annotations

import logging
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.importing.weights_file import load_into, num_classes_of, read_weights


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5))


@pytest.mark.parametrize("form", ["safetensors", "pth", "nested"])
def test_weights_are_read(form: str, tmp_path: Path) -> None:
    state = model().state_dict()
    path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if form == "nested" else state, path)
    found, own = read_weights(path), model()
    load_into(own, found, path)
    assert num_classes_of(found, path) == 5
    assert all(torch.equal(own.state_dict()[name], value) for name, value in state.items() if "tracked" not in name)


def test_other_names_in_the_same_order_are_matched_and_said(caplog: pytest.LogCaptureFixture) -> None:
    given = {f"net.{name}": value for name, value in model().state_dict().items()}
    own = model()
    with caplog.at_level(logging.WARNING):
        load_into(own, given, Path("w.pth"))
    assert "'w.pth': the names differ from the model's; its 8 tensors are matched by their order" in caplog.text
    assert torch.equal(own[3].weight, given["net.3.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"0.weight": torch.zeros(4, 3, 5, 5)},
            r"'0\.weight' has the shape \(4, 3, 5, 5\), but '0\.weight' of the model has \(4, 3, 3, 3\)",
        ),
        ({"4.bias": torch.zeros(2)}, r"it contains 9 tensors, the model 8; only 'w\.pth' has '4\.bias'"),
        (
            {"3.bias": torch.zeros(5, dtype=torch.int64)},
            r"'3\.bias' is torch\.int64, but '3\.bias' .* is torch\.float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        load_into(model(), {**model().state_dict(), **change}, Path("w.pth"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"a": print}))
    with pytest.raises(DmaskError, match="contains objects other than tensors and is not loaded"):
        read_weights(path)
    torch.save({"a": 1}, path)
    with pytest.raises(DmaskError, match="contains no state dict"):
        read_weights(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DmaskError, match=r"evil\.pth'"):
        read_weights(path)
    with pytest.raises(DmaskError, match="no file"):
        read_weights(tmp_path / "absent.pth")


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates them, but files contain them
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


INFINITE = torch.tensor([1.0, float("inf")])


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:.*deprecated")
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "contains no weights"),
        ({"a": torch.tensor(1.0)}, "contains no weights"),
        ({"norm.num_batches_tracked": torch.tensor([1])}, "contains no weights"),
        ({"a": torch.empty(2, device="meta")}, r"the tensor 'a' has no values \(device meta\)"),
        ({"a": torch.eye(2).to_sparse()}, r"the tensor 'a' is torch\.sparse_coo, not a dense tensor"),
        ({"a": quantized()}, "the tensor 'a' is quantized"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, r"the tensor 'a' has complex numbers \(torch\.complex64\)"),
        ({"a": INFINITE}, "the tensor 'a' contains NaN or infinity"),
        ({"a": -INFINITE.half()}, "the tensor 'a' contains NaN or infinity"),
        ({"a": torch.tensor([1e300], dtype=torch.float64)}, "the tensor 'a' contains NaN or infinity"),
        ({"a": torch.tensor([float("nan")])}, "the tensor 'a' contains NaN or infinity"),
        ({"a": torch.ones(1).expand(10**9)}, "the tensor 'a' has 1,000,000,000 elements that share memory"),
        ({"a": INFINITE.to(torch.float8_e5m2)}, "the tensor 'a' contains NaN or infinity"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_tensors_that_are_no_weights_are_refused(state: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path)
    with pytest.raises(DmaskError, match=rf"w\.pth'.* {message}"):
        read_weights(path)


@pytest.mark.parametrize("shape", [(0, 4), (100_000,)])
def test_a_last_tensor_that_is_no_classifier_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DmaskError, match=r"the last tensor 'b' has the shape .*, but a classifier has 1 to 65,536"):
        num_classes_of({"a": torch.ones(2), "b": torch.zeros(shape)}, Path("w.pth"))
