"""The evaluator's operations and its float16, on programs written down in MIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dmask_mobile.errors import DmaskError
from export.formats.coreml.evaluator import CoreMLProgram
from export.formats.coreml.reader import quiet_coremltools


def program(body: Callable[..., Any], shape: tuple[Any, ...], opset: str = "iOS16") -> CoreMLProgram:
    """A program ``body(builder, x)`` of one float32 input."""
    with quiet_coremltools() as coremltools:
        from coremltools.converters.mil import Builder

        specs = [Builder.TensorSpec(shape=shape)]
        made = Builder.program(input_specs=specs, opset_version=coremltools.target[opset])(lambda x: body(Builder, x))
        return CoreMLProgram(made.functions["main"])


def output(body: Callable[..., Any], images: torch.Tensor) -> torch.Tensor:
    """The one output for images (M, ...), by a program whose batch is 1."""
    (found,) = program(body, (1, *images.shape[1:]))(images).values()
    return found


def in_half(body: Callable[..., Any]) -> Callable[..., Any]:
    """``body`` in float16, between a cast at the input and one at the output."""

    def wrapped(mb: Any, x: Any) -> Any:
        return mb.cast(x=body(mb, mb.cast(x=x, dtype="fp16")), dtype="fp32")

    return wrapped


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


X = torch.linspace(-8, 8, 96).view(2, 3, 4, 4)
FORMULAS: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
    "add": (lambda mb, x: mb.add(x=x, y=np.float32(2)), X + 2),
    "mul": (lambda mb, x: mb.mul(x=x, y=x), X**2),
    "relu": (lambda mb, x: mb.relu(x=x), X * (X > 0)),
    "sigmoid": (lambda mb, x: mb.sigmoid(x=x), 1 / (1 + torch.exp(-X))),
    "sigmoid_hard": (
        lambda mb, x: mb.sigmoid_hard(x=x, alpha=0.25, beta=0.5),
        torch.minimum(torch.maximum(X / 4 + 0.5, torch.tensor(0.0)), torch.tensor(1.0)),
    ),
    "thresholded_relu": (lambda mb, x: mb.thresholded_relu(x=x, alpha=-3.0), X * (X >= -3)),
    "reduce_mean": (lambda mb, x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True), X.sum((2, 3), True) / 16),
    "softmax": (lambda mb, x: mb.softmax(x=x, axis=1), X.exp() / X.exp().sum(1, True)),
    "reshape": (lambda mb, x: mb.reshape(x=x, shape=[1, 48]), X.view(2, 48)),
    "reshape of the rest": (lambda mb, x: mb.reshape(x=x, shape=[1, -1]), X.view(2, 48)),
    "linear": (
        lambda mb, x: mb.linear(x=x, weight=np.full((2, 4), 0.5, np.float32), bias=np.float32([1, 2])),
        (X.sum(-1, True) / 2).expand(2, 3, 4, 2) + torch.tensor([1.0, 2.0]),
    ),
}


@pytest.mark.parametrize("operation", FORMULAS)
def test_operation_is_its_formula(operation: str) -> None:
    body, expected = FORMULAS[operation]
    torch.testing.assert_close(output(body, X), expected)


def test_conv_pads_strides_and_groups() -> None:
    """Two channels apart, 3 x 3 ones, one row and column of zeros on top and left only: sums of what is covered."""

    def body(mb: Any, x: Any) -> Any:
        weight = np.ones((2, 1, 3, 3), np.float32)
        bias = np.float32([0, 100])
        return mb.conv(x=x, weight=weight, bias=bias, strides=[2, 2], pad_type="custom", pad=[1, 0, 1, 0], groups=2)

    image = torch.ones(1, 2, 4, 4)
    expected = torch.tensor([[4.0, 6.0], [6.0, 9.0]])
    torch.testing.assert_close(output(body, image), torch.stack([expected, expected + 100])[None])


def test_conv_padding_that_depends_on_the_size_is_refused() -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.conv(x=x, weight=np.ones((1, 1, 3, 3), np.float32), pad_type="same")

    with pytest.raises(DmaskError, match="supports conv padding 'valid' and 'custom', got 'same'"):
        output(body, torch.zeros(1, 1, 4, 4))


def test_affine_dequantize_scales_each_channel_of_its_axis() -> None:
    """scale (quantized - zero point): (10 - 0) 0.5 = 5; (-128 + 2) 2 = -252."""

    def body(mb: Any, x: Any) -> Any:
        weight = mb.constexpr_affine_dequantize(
            quantized_data=np.int8([[10], [-128]]), zero_point=np.int8([0, -2]), scale=np.float32([0.5, 2]), axis=0
        )
        return mb.linear(x=x, weight=weight)

    assert output(body, torch.tensor([[1.0], [10.0]])).tolist() == [[5, -252], [50, -2520]]


def test_each_image_is_alone_whatever_the_axis() -> None:
    """With batch 1 a mean over axis 0 changes nothing, and a shape may hide the batch between other dimensions."""
    images = torch.randn(5, 2, 3)
    torch.testing.assert_close(output(lambda mb, x: mb.reduce_mean(x=x, axes=[0], keep_dims=True), images), images)

    def hidden(mb: Any, x: Any) -> Any:
        return mb.reshape(x=mb.softmax(x=mb.reshape(x=x, shape=[3, 2]), axis=0), shape=[1, 2, 3])

    expected = images.reshape(5, 3, 2).softmax(1).reshape(5, 2, 3)
    torch.testing.assert_close(output(hidden, images), expected)


def test_more_images_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.formats.coreml.evaluator.VALUES_AT_ONCE", 100)
    images = torch.randn(7, 3, 4, 4)
    torch.testing.assert_close(output(lambda mb, x: mb.add(x=x, y=x), images), 2 * images)


def test_open_batch_runs_all_images_through_the_shapes_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.formats.coreml.evaluator.VALUES_AT_ONCE", 100)
    with quiet_coremltools():
        from coremltools.converters.mil.mil import get_new_symbol

        batch = get_new_symbol()
    images = torch.randn(7, 3, 4, 4)
    (found,) = program(lambda mb, x: mb.reshape(x=x, shape=[-1, 48]), (batch, 3, 4, 4))(images).values()
    torch.testing.assert_close(found, images.flatten(1))


def test_batch_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="the batch must be 1 or open, found 2"):
        program(lambda mb, x: mb.relu(x=x), (2, 3))


def test_images_of_another_shape_are_refused() -> None:
    made = program(lambda mb, x: mb.relu(x=x), (1, 3, 4, 4))
    with pytest.raises(DmaskError, match=r"takes images \(3, 4, 4\), got \(4, 4, 3\)"):
        made(torch.zeros(2, 4, 4, 3))


def test_unknown_operation_is_an_error() -> None:
    with pytest.raises(
        DmaskError, match="operation 'tanh' is not supported by the evaluator, which supports add, cast"
    ):
        output(lambda mb, x: mb.tanh(x=x), X)


def test_unknown_number_format_is_an_error() -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32")

    with pytest.raises(DmaskError, match=r"fp32 and fp16 results; cast .* has another"):
        output(body, X)


def test_float16_rounds_every_result() -> None:
    """float16 has 11 bits: 2049 is 2048, 4097 / 4 needs 13; 65520 and more is infinite, 2^-25 and less is 0."""
    images = column(2049, 60000, 2.0**-25)
    assert output(in_half(lambda mb, x: mb.relu(x=x)), images).flatten().tolist() == [2048, 60000, 0]
    doubled = output(in_half(lambda mb, x: mb.add(x=x, y=x)), images)
    assert doubled.flatten().tolist() == [4096, torch.inf, 0]
    third = output(in_half(lambda mb, x: mb.mul(x=x, y=np.float16(1 / 3))), column(1.0))
    assert third.item() == float(np.float16(1 / 3)) != 1 / 3


def test_float16_is_rounded_between_operations() -> None:
    """(2048 + 1) - 2048 is 0 where the sum is rounded, 1 where only the end is."""

    def body(mb: Any, x: Any) -> Any:
        return mb.add(x=mb.add(x=x, y=np.float16(1)), y=np.float16(-2048))

    assert output(in_half(body), column(2048)).item() == 0
    assert output(lambda mb, x: mb.add(x=mb.add(x=x, y=np.float32(1)), y=np.float32(-2048)), column(2048)).item() == 1


def test_float16_accumulates_in_float32() -> None:
    """2048 + 1 + 1 is 2050, a float16; added up in float16 it would stay 2048."""

    def body(mb: Any, x: Any) -> Any:
        return mb.linear(x=x, weight=np.ones((1, 3), np.float16))

    assert output(in_half(body), torch.tensor([[2048.0, 1.0, 1.0]])).item() == 2050


def test_normalization_of_pixels_in_float16() -> None:
    """0..255 are float16 numbers; scale, product, shift and sum round: less than a quarter of a pixel's step."""
    mean, std = 0.485, 0.229
    scale, shift = np.float16(1 / (std * 255)), np.float16(-mean / std)
    levels = torch.arange(256.0)
    found = output(in_half(lambda mb, x: mb.add(x=mb.mul(x=x, y=scale), y=shift)), levels.view(-1, 1, 1, 1)).flatten()
    exact = (levels / 255 - mean) / std
    assert (found - exact).abs().max() < 0.25 * (exact[1] - exact[0])
    assert (found.diff() > 0).all()
