"""At soft gates folded masks equal explicit masks on the feature maps: outputs and gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

from dmask_mobile.records.block import round8
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.supernet.gates import GateLogits, Gates
from dmask_mobile.supernet.layers import MaskedConv, MaskedHead, MaskedInvertedResidual, mask_inputs
from dmask_mobile.supernet.masks import WidthMask
from dmask_mobile.supernet.resolution import subsample
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.dmask_mobile.supernet.test_supernet import random_supernet
from tests.strategies import spaces_with_choice


def binary(width: int, channels: int) -> Tensor:
    return (torch.arange(channels) < width).double().view(1, -1, 1, 1)


def explicit_mask(options: list[int], gate: Tensor) -> Tensor:
    """The paper's equation 5, literally: the gate-weighted sum of binary masks."""
    return sum(g * binary(width, max(options)) for width, g in zip(options, gate, strict=True))


def explicit_inverted_residual(block: MaskedInvertedResidual, space: SearchSpace, x: Tensor, gates: Gates) -> Tensor:
    slot, decisions = block.slot, space.decisions
    widths_in = [int(w) for w in decisions[slot.in_width].options]
    widths_out = [int(w) for w in decisions[slot.out_width].options]
    pairs = [
        (round8(c * e), gi * ge)
        for c, gi in zip(widths_in, gates[slot.in_width], strict=True)
        for e, ge in zip(decisions[slot.expansion].options, gates[slot.expansion], strict=True)
    ]
    hidden_mask = explicit_mask([h for h, _ in pairs], torch.stack([g for _, g in pairs]))
    squeeze_mask = explicit_mask([round8(h / 4) for h, _ in pairs], torch.stack([g for _, g in pairs]))

    h = block.expand(x)
    of_kernels = 0
    for kernel, gate in zip(decisions[slot.kernel].options, gates[slot.kernel], strict=True):
        border = (block.depthwise.conv.weight.shape[-1] - int(kernel)) // 2
        inner = F.pad(torch.ones(int(kernel), int(kernel), dtype=torch.float64), [border] * 4)
        conv = block.depthwise.conv
        of_kernels = of_kernels + gate * F.conv2d(
            h, conv.weight * inner, None, conv.stride, conv.padding, 1, conv.groups
        )
    h = block.depthwise.act(block.depthwise.norm(of_kernels)) * hidden_mask
    if block.se is not None:
        squeezed = block.se.act(block.se.squeeze(h.mean((2, 3), keepdim=True))) * squeeze_mask
        attended = h * block.se.gate(block.se.excite(squeezed))
        options = decisions[slot.squeeze_excite].options
        gate = gates[slot.squeeze_excite]
        h = attended if len(options) == 1 else gate[1] * attended + gate[0] * h
    y = block.project(h) * explicit_mask(widths_out, gates[slot.out_width])
    if slot.skip is not None:
        y = y * gates[slot.skip][0]
    if slot.stride == 2:
        return y
    weight = sum(
        gi * go
        for wi, gi in zip(widths_in, gates[slot.in_width], strict=True)
        for wo, go in zip(widths_out, gates[slot.out_width], strict=True)
        if wi == wo
    )
    if slot.in_width == slot.out_width:
        weight = 1.0
    padded = F.pad(x, (0, 0, 0, 0, 0, max(0, y.shape[1] - x.shape[1])))[:, : y.shape[1]]
    return y + weight * padded


def explicit_forward(supernet: MaskedSupernet, x: Tensor, gates: Gates) -> Tensor:
    space = supernet.space
    features = 0
    for gate, size in zip(gates[0], space.input.resolutions, strict=True):
        h = subsample(x, size)
        for block, slot in zip(supernet.blocks, space.slots, strict=True):
            if isinstance(block, MaskedConv):
                widths = [int(w) for w in space.decisions[slot.out_width].options]
                h = block(h) * explicit_mask(widths, gates[slot.out_width])
            elif isinstance(block, MaskedInvertedResidual):
                h = explicit_inverted_residual(block, space, h, gates)
        features = features + gate * h.mean((2, 3))
    head = supernet.blocks[-1]
    assert isinstance(head, MaskedHead)
    return head.linear(features)


@given(spaces_with_choice())
def test_folded_masks_equal_explicit_masks(case: tuple[SearchSpace, Choice]) -> None:
    space, _ = case
    supernet = random_supernet(space, torch.float64).train()
    logits = GateLogits(space).double()
    with torch.no_grad():
        logits.logits.normal_(generator=torch.Generator().manual_seed(3))
    x = torch.randn(4, space.input.channels, space.resolution, space.resolution, dtype=torch.float64)
    results = []
    for forward in (supernet, lambda x, gates: explicit_forward(supernet, x, gates)):
        scores = forward(x, logits.sample(1.0, torch.Generator().manual_seed(4)))
        (gradient,) = torch.autograd.grad(scores.square().sum(), logits.logits)
        results.append((scores.detach(), gradient))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-7, atol=1e-9)


def test_folded_masks_equal_the_instantiated_sum_of_padded_options() -> None:
    """The paper's naive form, before any trick (section 3.1, equation 3), on a bottleneck without norms.

    Every pair of output width and expansion is a block of its own with its slice of the weights; their outputs are
    padded with zeros and summed with the product of the gates.
    """
    generator = torch.Generator().manual_seed(0)
    widths, hidden_widths, c_in = [8, 12, 16], [8, 24, 40], 8
    expand, depthwise, project = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((40, c_in, 1, 1), (40, 1, 3, 3), (16, 40, 1, 1))
    )
    x = torch.randn(2, c_in, 9, 9, generator=generator, dtype=torch.float64)
    g_out, g_hidden = (torch.tensor(g, dtype=torch.float64) for g in ([0.2, 0.3, 0.5], [0.1, 0.6, 0.3]))

    def block(hidden: int, width: int) -> Tensor:
        h = F.relu(F.conv2d(x, expand[:hidden]))
        h = F.relu(F.conv2d(h, depthwise[:hidden], padding=1, groups=hidden))
        y = F.conv2d(h, project[:width, :hidden])
        return F.pad(y, (0, 0, 0, 0, 0, 16 - width))

    instantiated = sum(
        g_out[i] * g_hidden[j] * block(hidden, width)
        for i, width in enumerate(widths)
        for j, hidden in enumerate(hidden_widths)
    )
    h = F.relu(F.conv2d(F.relu(F.conv2d(x, expand)), depthwise, padding=1, groups=40))
    masked = F.conv2d(h, mask_inputs(project, WidthMask(hidden_widths)(g_hidden)))
    masked = masked * WidthMask(widths)(g_out).view(1, -1, 1, 1)
    torch.testing.assert_close(masked, instantiated, rtol=0, atol=1e-6)
