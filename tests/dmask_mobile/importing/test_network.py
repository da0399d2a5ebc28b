"""An imported network is the original: outputs, counts; what is not understood is refused by its name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.importing.network import import_network
from dmask_mobile.importing.proof import check_outputs, child_network, difference
from dmask_mobile.importing.space_around import space_around
from dmask_mobile.supernet.gates import one_hot_gates
from dmask_mobile.supernet.supernet import MaskedSupernet
from export.verification.counts import count_fvcore
from tests.dmask_mobile.importing.models import random_model

HALVES = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SIZE = 64
# One for each part that a network may have; benchmarks/imported_models.py has the whole list.
SOURCES = {
    "torchvision:mobilenet_v2": "blocks without expansion, ReLU6",
    "torchvision:mobilenet_v3_small": "squeeze-excite, h-swish, a linear hidden layer in the head",
    "torchvision:mnasnet0_5": "a block that is spelled out",
    "timm:tf_mobilenetv3_small_minimal_100": "padding SAME, epsilon 1e-3, a convolution in the head",
    "timm:efficientnet_es_pruned": "fused inverted residuals, widths that are no multiples of 8",
    "timm:mobilenetv4_conv_small_035": "universal inverted residuals, a norm in the head",
    "timm:tf_efficientnetv2_b0": "convolutions with a shortcut, SiLU",
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_widest_child_is_the_original(source: str) -> None:
    model = random_model(source)
    imported = import_network(model, SIZE, source)
    assert difference(model, child_network(imported), imported.child.input_shape, torch.float32) <= 1e-5
    counts = Macs().estimate(imported.child).value, Params().estimate(imported.child).value
    assert count_fvcore(model, imported.child.input_shape) == counts

    space = space_around(imported.child, source, HALVES)
    supernet = MaskedSupernet(space).double().eval()
    supernet.load_state_dict({**supernet.state_dict(), **import_network(model.double(), SIZE, source).state})
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(x)
        for gates in (space.largest(), one_hot_gates(space, space.largest(), torch.float64)):
            found = supernet(x, gates)
            assert (found - expected).abs().max() <= 1e-10 * (expected.max() - expected.min())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:mixnet_s", r"'blocks\.1\.0\.conv_pw' \(MixedConv2d\) cannot be taken over: this kind of module"),
        ("timm:resnet18", r"'maxpool' \(MaxPool2d\) cannot be taken over"),
        ("timm:mobilenetv1_100", r"'blocks\.0\.0\.conv_pw' .* must be 1 x 1, without an activation"),
        ("timm:ghostnet_050", r"\(GhostBottleneck\) cannot be taken over"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(source: str, message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        import_network(random_model(source), SIZE, source)


def small(*blocks: nn.Module) -> nn.Sequential:
    stem = Conv2dNormActivation(3, 8, stride=2)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([nn.Conv2d(8, 8, 3, padding=1, groups=2)], r"'1' \(Conv2d\).*2 groups of 8 channels are not depthwise"),
        ([nn.Conv2d(8, 8, 3)], r"'1' \(Conv2d\).*padding \(0, 0\)"),
        ([nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)], r"'2' \(GroupNorm\).*this kind of module is not known"),
        ([nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.GELU()], r"'3' \(GELU\)"),
        ([Conv2dNormActivation(8, 8, groups=8)], r"'1\.0' \(Conv2d\).*no block of the known kinds has it there"),
        ([nn.Conv2d(8, 8, 1), nn.ReLU()], r"'1' \(Conv2d\).*a convolution needs a batch norm"),
        ([nn.MultiheadAttention(8, 2)], r"'1' \(MultiheadAttention\)"),
    ],
)
def test_a_module_that_no_block_has_is_refused(blocks: list[nn.Module], message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        import_network(small(*blocks), 32, "small")


def test_a_network_that_does_more_than_its_modules_is_refused() -> None:
    class Doubling(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(2 * x)

    model = Doubling(*small(Conv2dNormActivation(8, 8)))
    imported = import_network(model, 32, "doubling")
    with pytest.raises(DmaskError, match=r"outputs differ from the original's by .* of their range, more than 1e-05"):
        check_outputs(model.eval(), imported)
