"""Training that computes as in int8."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dmask_mobile.data.images import normalized, seen
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.records.artifact import Preprocessing
from dmask_mobile.training.estimate import estimate_training
from dmask_mobile.training.fake_quantization import FakeQuantized, rounded_activation, rounded_weights, spread_of
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer, TrainSettings, train_child
from export.deployable import Deployable
from export.formats.onnx.reader import OnnxModel
from export.formats.onnx.writer import to_onnx
from tests.dmask_mobile.small import few_images
from tests.dmask_mobile.training.test_train import CHILD, InterruptedTrainingError

SETTINGS = TrainSettings(epochs=2, batch_size=64, learning_rate=0.1, ema_decay=0.9, qat="onnx")


def test_weights_have_a_symmetric_scale_for_each_channel() -> None:
    weight = torch.randn(5, 4, 3, 3) * torch.tensor([1e-3, 1, 10, 0, 5]).view(5, 1, 1, 1)
    weight.requires_grad_()
    rounded = rounded_weights(weight)
    for own, found in zip(weight, rounded, strict=True):
        step = own.abs().max() / 127
        assert (own - found).abs().max() <= 0.501 * step
        assert len(found.unique()) <= 255
        assert torch.allclose(found.abs().max(), own.abs().max())
    rounded.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_activations_have_256_levels_of_which_one_is_zero() -> None:
    values = (torch.rand(4000) * 3 - 0.4).requires_grad_()
    rounded = rounded_activation(values)
    assert len(rounded.unique()) == 256
    assert 0 in rounded
    assert (rounded - values).abs().max() <= 0.51 * 3 / 255
    assert torch.equal(rounded_activation(torch.zeros(3)), torch.zeros(3))
    assert torch.equal(rounded_activation(torch.tensor([5.0])), torch.tensor([5.0]))  # the range contains 0


def test_the_spread_falls_when_an_outlier_does() -> None:
    values = torch.linspace(-1, 1, 999)
    with_outlier = torch.cat([values, torch.tensor([40.0])]).requires_grad_()
    assert spread_of(values).item() == pytest.approx(math.log(2 / values.std().item()), rel=1e-4)
    spread_of(with_outlier).backward()
    assert with_outlier.grad.argmax() == 999
    assert with_outlier.grad[999] > 0
    assert spread_of(with_outlier) > spread_of(values) + 1


def test_it_imitates_onnx_runtime(tmp_path: Path) -> None:
    """It changes scores by as much as the int8 export does; single roundings differ."""
    data = few_images(96)
    network, images = build(CHILD), normalized(data.train.pixels(), data)
    with torch.no_grad():
        for _ in range(30):
            network.train()(images)  # running statistics of real images
    pixels, preprocessing = seen(data.train.pixels(), data), Preprocessing(mean=data.mean, std=data.std)
    (tmp_path / "m.onnx").write_bytes(to_onnx(Deployable(network, preprocessing), (1, 3, 16, 16), "int8", pixels))
    (exported,) = OnnxModel(tmp_path / "m.onnx").run(pixels).values()
    quantized = FakeQuantized(network.eval())
    with torch.no_grad():
        plain = quantized(images)
        quantized.active = True
        imitated = quantized(images)
        assert torch.equal(network(images), plain)  # nothing is left in the network
    ratio = (imitated - plain).square().mean() / (exported - plain).square().mean()
    assert 1 / 3 < ratio < 3


def test_the_last_half_of_the_epochs_differs_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    data, first = few_images(256), {}

    def keep(name: str, stop: bool = False) -> None:
        network = build(CHILD)

        def look(stage: str, done: int, total: int, note: str = "") -> None:
            if stage == "train" and note != "goes on":
                first[name, done] = {key: value.clone() for key, value in network.state_dict().items()}
                if stop:
                    raise InterruptedTrainingError

        settings = SETTINGS if name != "plain" else SETTINGS.model_copy(update={"qat": None})
        train_child(network, data, settings, tmp_path / name, look)

    keep("plain")
    keep("qat")
    with pytest.raises(InterruptedTrainingError):
        keep("resumed", stop=True)
    keep("resumed")
    for key, value in first["plain", 1].items():
        assert torch.equal(first["qat", 1][key], value), key
        assert torch.equal(first["qat", 2][key], first["resumed", 2][key]), key
    assert any(not torch.equal(first["qat", 2][key], value) for key, value in first["plain", 2].items())


def test_a_dry_run_times_both_halves() -> None:
    trainer = Trainer(build(CHILD), few_images(256), SETTINGS, Machine())
    plain, quantized, _ = estimate_training(trainer).steps
    assert (plain.kind, plain.num_steps) == ("training", 4)
    assert (quantized.kind, quantized.num_steps) == ("int8 training", 4)


def test_it_cannot_be_compiled() -> None:
    with pytest.raises(DmaskError, match="--qat cannot be combined with --compile; leave out --compile"):
        Trainer(build(CHILD), few_images(64), SETTINGS, Machine(compiled=True))
