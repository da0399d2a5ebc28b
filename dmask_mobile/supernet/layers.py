"""The supernet's layers: the modules of the widest block, with masks folded into their weights.

Why masks are folded: multiplying feature maps by masks is limited by memory bandwidth (a step takes 1.18 to 1.25 times
as long); multiplying the weights by the same masks involves only small tensors. Where each mask is applied:

- hidden width: the projection's input channels and the squeeze convolution's input channels;
- squeeze width: the excite convolution's input channels;
- output width (no activation follows): scale and shift of the last batch norm;
- output width of the stem and the last convolution (an activation follows, and act(m y) != m act(y)): the input
  channels of the layer that consumes the feature map.

Shape legend: N batch, C/O in and out channels, E hidden channels, H W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmask_mobile.nets.blocks import ConvBlock, ConvNorm, Head, InvertedResidual, SqueezeExcite
from dmask_mobile.records.space import SearchSpace, Slot
from dmask_mobile.supernet.gates import Gates
from dmask_mobile.supernet.masks import WidthMask, agreement, centred_kernels


def scaled_batch_norm(norm: nn.BatchNorm2d, x_NCHW: Tensor, mask_C: Tensor) -> Tensor:
    """``mask * norm(x)``, by scaling the affine parameters; updates the running statistics as ``norm`` does."""
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    momentum = 0.1 if norm.momentum is None else norm.momentum
    return F.batch_norm(
        x_NCHW,
        norm.running_mean,
        norm.running_var,
        norm.weight * mask_C,
        norm.bias * mask_C,
        norm.training,
        momentum,
        norm.eps,
    )


def conv_with(conv: nn.Conv2d, x_NCHW: Tensor, weight: Tensor) -> Tensor:
    """The result of ``conv`` with ``weight`` instead of its own weight."""
    y_NCHW: Tensor = conv._conv_forward(x_NCHW, weight, conv.bias)
    return y_NCHW


def mask_inputs(weight_OC: Tensor, mask_C: Tensor | None) -> Tensor:
    """A weight (O, C, ...) with its input channels masked."""
    return weight_OC if mask_C is None else weight_OC * mask_C.view(1, -1, *[1] * (weight_OC.dim() - 2))


def mask_depthwise(weight_C1KK: Tensor, mask_C: Tensor | None) -> Tensor:
    """A depthwise weight (C, 1, K, K) with its channels masked."""
    return weight_C1KK if mask_C is None else weight_C1KK * mask_C.view(-1, 1, 1, 1)


class KernelMask(nn.Module):
    """Masks the largest kernel by the gate of the kernel size; smaller kernels are the centre of the largest.

    Args:
        space: the space.
        decision: the decision about the size; None if there is no such convolution.
    """

    def __init__(self, space: SearchSpace, decision: int | None) -> None:
        super().__init__()
        self.decision = decision
        sizes = (1,) if decision is None else space.decisions[decision].options
        self.kernels: Tensor
        self.register_buffer("kernels", centred_kernels([int(size) for size in sizes]), persistent=False)

    def forward(self, weight: Tensor, gates: Gates) -> Tensor:
        """The weight (..., K, K), masked by the gates."""
        if self.decision is None or len(self.kernels) == 1:
            return weight
        gate = gates[self.decision]
        mask_KK: Tensor = torch.tensordot(gate, self.kernels.to(gate.dtype), dims=1)
        return weight * mask_KK


class MaskedConv(ConvBlock):
    """A convolution with an activation; the next layer applies its output mask (``out_mask``).

    With a shortcut, this layer masks the feature map itself, because the shortcut is already masked.
    """

    def __init__(self, space: SearchSpace, slot: Slot) -> None:
        super().__init__(space.block(slot, space.largest()))
        self.slot = slot
        self.width_mask = WidthMask([int(w) for w in space.decisions[slot.out_width].options])
        self.kernel_mask = KernelMask(space, slot.kernel)

    def out_mask(self, gates: Gates) -> Tensor | None:
        """The mask (O,) that the next layer must apply to its input; None if there is nothing to apply."""
        gate = gates[self.slot.out_width]
        return self.width_mask(gate) if len(gate) > 1 and not self.residual else None

    def masked_forward(self, x_NCHW: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        """The output of the block for ``x``; ``in_mask_C`` is applied to the input channels."""
        weight = self.kernel_mask(mask_inputs(self.conv.weight, in_mask_C), gates)
        y_NOHW: Tensor = self.act(self.norm(conv_with(self.conv, x_NCHW, weight)))
        if not self.residual:
            return y_NOHW
        mask_O = self.width_mask(gates[self.slot.out_width])
        if self.slot.skip is not None:
            mask_O = mask_O * gates[self.slot.skip][0]
        shortcut = x_NCHW if in_mask_C is None else x_NCHW * in_mask_C.view(1, -1, 1, 1)
        y_NOHW = shortcut + y_NOHW * mask_O.view(1, -1, 1, 1)
        return y_NOHW


class MaskedHead(Head):
    """Pooling and classifier of the supernet."""

    def __init__(self, space: SearchSpace, slot: Slot) -> None:
        super().__init__(space.block(slot, space.largest()))
        self.slot = slot
        if slot.expansion is not None:
            self.hidden_mask = WidthMask([int(w) for w in space.decisions[slot.expansion].options])

    @property
    def is_linear(self) -> bool:
        """Whether the head is linear, so that features may be mixed instead of scores."""
        return self.slot.expansion is None

    def masked_forward(self, pooled_NC: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        """The class scores computed from pooled features."""
        if self.slot.expansion is not None:
            pooled_NC = self.act(F.linear(pooled_NC, mask_inputs(self.hidden.weight, in_mask_C), self.hidden.bias))
            in_mask_C = self.hidden_mask(gates[self.slot.expansion])
        return F.linear(pooled_NC, mask_inputs(self.linear.weight, in_mask_C), self.linear.bias)


class MaskedInvertedResidual(InvertedResidual):
    """An inverted residual whose widths, kernels, squeeze-excite and presence are gates."""

    def __init__(self, space: SearchSpace, slot: Slot) -> None:
        super().__init__(space.block(slot, space.largest()))
        self.slot = slot
        decisions = space.decisions
        in_widths = [int(w) for w in decisions[slot.in_width].options]
        out_widths = [int(w) for w in decisions[slot.out_width].options]
        self.out_mask_of = WidthMask(out_widths)
        self.in_mask_of = WidthMask(in_widths)
        self.by_factor = slot.expansion is not None and decisions[slot.expansion].kind == "expansion"
        expansions = (1,) if slot.expansion is None else decisions[slot.expansion].options
        widths = in_widths if self.by_factor or slot.expansion is None else in_widths[:1]
        hidden_widths = [space.hidden_width(slot, c, e) for c in widths for e in expansions]
        self.hidden_mask = WidthMask(hidden_widths)
        self.kernel_mask = KernelMask(space, slot.kernel)
        self.start_mask = KernelMask(space, slot.start_kernel)
        self._choose_squeezing(space, hidden_widths)
        # A shortcut exists where input and output widths are equal; with tied widths they always are.
        self.tied = slot.in_width == slot.out_width
        agrees = agreement(in_widths, out_widths)
        self.has_shortcut = slot.stride == 1 and slot.shortcut is not False and bool(agrees.any())
        self.agrees: Tensor
        self.register_buffer("agrees", agrees, persistent=False)

    def _choose_squeezing(self, space: SearchSpace, hidden_widths: list[int]) -> None:
        """Sets the squeeze widths: derived from the hidden widths, or options of their own, where 0 means none."""
        assert self.slot.squeeze_excite is not None
        decision = space.decisions[self.slot.squeeze_excite]
        self.squeeze_follows = decision.kind == "squeeze_excite"
        if self.squeeze_follows:
            widths = [space.squeeze_width(self.slot, width, True) for width in hidden_widths]
        else:
            widths = [int(width) for width in decision.options if width]
        self.squeeze_mask = WidthMask(widths or [1])
        self.may_lack_se = len(decision.options) > 1 and not decision.options[0]

    def out_mask(self, gates: Gates) -> Tensor | None:
        """None: this block applies its masks itself."""
        return None

    def masked_forward(self, x_NCHW: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        """The output of the block for ``x`` under ``gates``; the top of this file says where masks are applied.

        Args:
            x_NCHW: the input; masked already unless ``in_mask_C`` is given.
            gates: one vector for each decision of the space.
            in_mask_C: the output mask of the previous block, if this block must apply it.
        """
        hidden_gates = self._hidden_gates(gates)
        hidden_mask_E = self.hidden_mask(hidden_gates)
        hidden_NEHW = self._hidden(x_NCHW, gates, in_mask_C)
        if self.se is not None:
            hidden_NEHW = hidden_NEHW * self._se_factors(self.se, hidden_NEHW, gates, hidden_gates, hidden_mask_E)

        conv = self.project.conv
        y_NOHW = conv_with(conv, hidden_NEHW, mask_inputs(conv.weight, hidden_mask_E))
        out_mask_O = self.out_mask_of(gates[self.slot.out_width])
        if self.slot.skip is not None:
            out_mask_O = out_mask_O * gates[self.slot.skip][0]
        y_NOHW = scaled_batch_norm(self.project.norm, y_NOHW, out_mask_O)
        return self._add_shortcut(x_NCHW, y_NOHW, gates, in_mask_C) if self.has_shortcut else y_NOHW

    def _hidden_gates(self, gates: Gates) -> Tensor:
        """The probabilities of the hidden widths, in the order of ``hidden_mask``."""
        in_gate = gates[self.slot.in_width]
        if self.slot.expansion is None:
            return in_gate
        gate = gates[self.slot.expansion]
        return torch.outer(in_gate, gate) if self.by_factor else gate

    def _hidden(self, x_NCHW: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        """The hidden feature map before squeeze-excite."""
        start, expand, depthwise = self.start, self.expand, self.depthwise
        if isinstance(start, ConvNorm):
            weight = self.start_mask(mask_depthwise(start.conv.weight, in_mask_C), gates)
            x_NCHW = start.norm(conv_with(start.conv, x_NCHW, weight))
            in_mask_C = self.in_mask_of(gates[self.slot.in_width])
        if isinstance(expand, ConvNorm):
            weight = mask_inputs(expand.conv.weight, in_mask_C)
            weight = self.kernel_mask(weight, gates) if self.slot.is_dense else weight
            x_NCHW = expand.act(expand.norm(conv_with(expand.conv, x_NCHW, weight)))
            in_mask_C = None  # the projection applies the mask of the hidden map
        if isinstance(depthwise, ConvNorm):
            weight = self.kernel_mask(mask_depthwise(depthwise.conv.weight, in_mask_C), gates)
            x_NCHW = depthwise.act(depthwise.norm(conv_with(depthwise.conv, x_NCHW, weight)))
        return x_NCHW

    def _se_factors(
        self, se: SqueezeExcite, hidden_NEHW: Tensor, gates: Gates, hidden_gates: Tensor, hidden_mask_E: Tensor
    ) -> Tensor:
        gate = gates[self.slot.squeeze_excite or 0]
        pooled_NE11 = F.adaptive_avg_pool2d(hidden_NEHW, 1)
        squeezed = se.act(conv_with(se.squeeze, pooled_NE11, mask_inputs(se.squeeze.weight, hidden_mask_E)))
        if self.squeeze_follows:
            squeeze_gates = hidden_gates
        else:
            present = gate[1:] if self.may_lack_se else gate
            squeeze_gates = present / present.sum().clamp_min(1e-12)
        excite_weight = mask_inputs(se.excite.weight, self.squeeze_mask(squeeze_gates))
        factors_NE11: Tensor = se.gate(conv_with(se.excite, squeezed, excite_weight))
        return factors_NE11 * gate[1:].sum() + gate[0] if self.may_lack_se else factors_NE11

    def _add_shortcut(self, x_NCHW: Tensor, y_NOHW: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        weight = None
        if not self.tied:
            agrees = self.agrees.to(y_NOHW.dtype)
            weight = gates[self.slot.in_width] @ agrees @ gates[self.slot.out_width]
        if in_mask_C is not None:
            weight = in_mask_C.view(1, -1, 1, 1) * (1.0 if weight is None else weight)
        shortcut = x_NCHW if weight is None else x_NCHW * weight
        extra = y_NOHW.shape[1] - shortcut.shape[1]
        if extra > 0:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, extra))
        return y_NOHW + shortcut[:, : y_NOHW.shape[1]]


MASKED: dict[str, type[MaskedConv | MaskedInvertedResidual | MaskedHead]] = {
    "conv": MaskedConv,
    "inverted_residual": MaskedInvertedResidual,
    "fused_inverted_residual": MaskedInvertedResidual,
    "head": MaskedHead,
}
"""The supernet's layer of each kind of slot."""
