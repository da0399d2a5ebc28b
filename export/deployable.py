"""The deployed network: from raw pixels to class scores, including normalization."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dmask_mobile.nets.blocks import ConvNorm
from dmask_mobile.records.artifact import Output, Preprocessing


class Deployable(nn.Module):
    """Exact per-channel normalization, the network, and a softmax if probabilities are requested; in evaluation mode.

    It maps float32 images in the layout and range of ``preprocessing``, (N, C, R, R) or (N, R, R, C), to (N, classes).

    Args:
        network: maps normalized images (N, C, R, R) to logits (N, classes).
        preprocessing: the layout and range of its input, and the normalization in its graph.
        output: logits or probabilities.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, output: Output = "logits") -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.output = output
        self.scale: Tensor
        self.shift: Tensor
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", (1 / (std * preprocessing.input_range[1])).float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).float().view(1, -1, 1, 1))
        self.to(memory_format=torch.contiguous_format)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        image_NCRR = image.permute(0, 3, 1, 2) if self.preprocessing.layout == "NHWC" else image
        scores_NK: Tensor = self.network(image_NCRR * self.scale + self.shift)
        return scores_NK.softmax(1) if self.output == "probabilities" else scores_NK

    def as_input(self, images_NCRR: Tensor) -> Tensor:
        """The model's input for images in 0..1."""
        return as_input(images_NCRR, self.preprocessing)


def as_input(images_NCRR: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The input of a model with this preprocessing for images in 0..1."""
    images = images_NCRR * preprocessing.input_range[1]
    return images.permute(0, 2, 3, 1).contiguous() if preprocessing.layout == "NHWC" else images


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy with batch norms folded into the convolutions before them, which halves the work of converters."""
    folded = copy.deepcopy(model).requires_grad_(False)
    for part in folded.modules():
        if isinstance(part, ConvNorm) and isinstance(part.norm, nn.BatchNorm2d):
            part.conv = fuse_conv_bn_eval(part.conv, part.norm)
            part.norm = nn.Identity()  # type: ignore[assignment]  # it has nothing left to do
    return folded


class InHalf(nn.Module):
    """The model with weights and operations in float16, with one cast at its input and one at its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.model(image.half()).float()
        return scores
