"""Weights of a user's file: by name, by order, and what is refused."""

from __future__ import annotations

import logging
import pickle
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
    assert num_classes_of(found) == 5
    assert all(torch.equal(own.state_dict()[name], value) for name, value in state.items() if "tracked" not in name)


def test_other_names_in_the_same_order_are_matched_and_said(caplog: pytest.LogCaptureFixture) -> None:
    given = {f"net.{name}": value for name, value in model().state_dict().items()}
    own = model()
    with caplog.at_level(logging.WARNING):
        load_into(own, given, Path("w.pth"))
    assert "'w.pth': the names differ from the model's; its 8 tensors are taken in order" in caplog.text
    assert torch.equal(own[3].weight, given["net.3.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"0.weight": torch.zeros(4, 3, 5, 5)},
            r"'0\.weight' has the shape \(4, 3, 5, 5\), the model's.*\(4, 3, 3, 3\)",
        ),
        ({"4.bias": torch.zeros(2)}, r"it holds 9 tensors, the model 8; '4\.bias' is in 'w\.pth' alone"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        load_into(model(), {**model().state_dict(), **change}, Path("w.pth"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"a": print}))
    with pytest.raises(DmaskError, match="holds more than tensors: it is not loaded"):
        read_weights(path)
    torch.save({"a": 1}, path)
    with pytest.raises(DmaskError, match="holds no state dict"):
        read_weights(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DmaskError, match=r"evil\.pth'"):
        read_weights(path)
    with pytest.raises(DmaskError, match="no file"):
        read_weights(tmp_path / "absent.pth")
