"""With soft gates, folded masks give the same outputs and gradients as explicit masks on the feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from dmask_mobile.nets.blocks import ConvNorm
from dmask_mobile.records.block import round8
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, Slot
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


def explicit_kernel(conv: nn.Conv2d, x: Tensor, options: tuple[float, ...], gate: Tensor) -> Tensor:
    """The gate-weighted sum of convolutions with the centre of the largest kernel."""
    of_kernels = 0
    for kernel, weight in zip(options, gate, strict=True):
        border = (conv.weight.shape[-1] - int(kernel)) // 2
        inner = F.pad(torch.ones(int(kernel), int(kernel), dtype=torch.float64), [border] * 4)
        of_kernels = of_kernels + weight * conv._conv_forward(x, conv.weight * inner, None)
    return of_kernels


def explicit_hidden_masks(slot: Slot, space: SearchSpace, gates: Gates) -> tuple[Tensor, Tensor | None]:
    """The mask of the hidden width and, where the squeeze width follows from it, that of the squeeze width."""
    widths_in = space.decisions[slot.in_width].options
    expansion = [1.0] if slot.expansion is None else space.decisions[slot.expansion].options
    gate = torch.ones(1, dtype=torch.float64) if slot.expansion is None else gates[slot.expansion]
    is_factor = slot.expansion is not None and space.decisions[slot.expansion].kind == "expansion"
    pairs = [
        (round8(c * e) if is_factor else int(c if slot.expansion is None else e), gi * ge)
        for c, gi in zip(widths_in, gates[slot.in_width], strict=True)
        for e, ge in zip(expansion, gate, strict=True)
    ]
    probabilities = torch.stack([g for _, g in pairs])
    hidden_mask = explicit_mask([h for h, _ in pairs], probabilities)
    if space.decisions[slot.squeeze_excite].kind == "squeeze_width":
        return hidden_mask, None
    return hidden_mask, explicit_mask([round8(h / 4) for h, _ in pairs], probabilities)


def explicit_squeeze(block: MaskedInvertedResidual, space: SearchSpace, h: Tensor, gates: Gates) -> Tensor:
    """``h`` after squeeze-excite: the gate-weighted sum of what each option makes of it."""
    if block.se is None:
        return h
    slot = block.slot
    options, gate = space.decisions[slot.squeeze_excite].options, gates[slot.squeeze_excite]
    _, squeeze_mask = explicit_hidden_masks(slot, space, gates)
    if squeeze_mask is None:  # one mask for those options that have squeeze-excite
        present = [(int(width), g) for width, g in zip(options, gate, strict=True) if width]
        total = sum(g for _, g in present)
        squeeze_mask = explicit_mask([width for width, _ in present], torch.stack([g / total for _, g in present]))
    squeezed = block.se.act(block.se.squeeze(h.mean((2, 3), keepdim=True))) * squeeze_mask
    attended = h * block.se.gate(block.se.excite(squeezed))
    return sum(g * (attended if option else h) for option, g in zip(options, gate, strict=True))


def explicit_inverted_residual(block: MaskedInvertedResidual, space: SearchSpace, x: Tensor, gates: Gates) -> Tensor:
    slot, decisions = block.slot, space.decisions
    widths_in = [int(w) for w in decisions[slot.in_width].options]
    widths_out = [int(w) for w in decisions[slot.out_width].options]
    hidden_mask, _ = explicit_hidden_masks(slot, space, gates)
    h = x
    if isinstance(block.start, ConvNorm):
        h = explicit_kernel(block.start.conv, h, decisions[slot.start_kernel].options, gates[slot.start_kernel])
        h = block.start.norm(h) * explicit_mask(widths_in, gates[slot.in_width])
    if slot.kind == "fused_inverted_residual":
        h = explicit_kernel(block.expand.conv, h, decisions[slot.kernel].options, gates[slot.kernel])
        h = block.expand.act(block.expand.norm(h))
    else:
        h = block.expand(h)
    if isinstance(block.depthwise, ConvNorm):
        h = explicit_kernel(block.depthwise.conv, h, decisions[slot.kernel].options, gates[slot.kernel])
        h = block.depthwise.act(block.depthwise.norm(h))
    h = explicit_squeeze(block, space, h * hidden_mask, gates)
    y = block.project(h) * explicit_mask(widths_out, gates[slot.out_width])
    if slot.skip is not None:
        y = y * gates[slot.skip][0]
    if slot.stride == 2 or slot.shortcut is False:
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


def explicit_conv(block: MaskedConv, space: SearchSpace, x: Tensor, gates: Gates) -> Tensor:
    slot = block.slot
    widths = [int(w) for w in space.decisions[slot.out_width].options]
    h = block.conv(x)
    if slot.kernel is not None:
        h = explicit_kernel(block.conv, x, space.decisions[slot.kernel].options, gates[slot.kernel])
    h = block.act(block.norm(h)) * explicit_mask(widths, gates[slot.out_width])
    if slot.skip is not None:
        h = h * gates[slot.skip][0]
    return h + x if slot.shortcut else h


def explicit_forward(supernet: MaskedSupernet, x: Tensor, gates: Gates) -> Tensor:
    space = supernet.space
    head = supernet.blocks[-1]
    assert isinstance(head, MaskedHead)
    scores = 0
    for gate, size in zip(gates[0], space.input.resolutions, strict=True):
        h = subsample(x, size)
        for block in supernet.blocks[:-1]:
            explicit = explicit_conv if isinstance(block, MaskedConv) else explicit_inverted_residual
            h = explicit(block, space, h, gates)
        features = h.mean((2, 3))
        if space.head is not None:
            features = head.act(head.hidden(features))
            features = features * explicit_mask(list(space.head.hidden_widths), gates[head.slot.expansion]).flatten()
        scores = scores + gate * head.linear(features)
    return scores


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
