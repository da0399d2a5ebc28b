"""The supernet's layers: the widest block's modules, run with masks folded into their weights.

Why folded: multiplying feature maps by masks is bound by memory (1.18 to 1.25 times a plain step); the same masks
multiplied into weights cost a few small tensors. Where each mask goes (x' means masked):

- hidden width: the projection's input channels and the squeeze convolution's input channels;
- squeeze width: the excite convolution's input channels;
- output width (no activation follows): scale and shift of the last batch norm;
- output width of the stem and the last convolution (an activation follows, and act(m y) != m act(y)): the input
  channels of whatever consumes the map.

Shape legend: N batch, C/O in and out channels, E hidden channels, H W map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmask_mobile.nets.blocks import ConvNorm, Head, InvertedResidual, SqueezeExcite
from dmask_mobile.records.block import round8
from dmask_mobile.records.space import SE_REDUCTION, SearchSpace, Slot
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
    """``conv`` with another weight in the place of its own."""
    return F.conv2d(x_NCHW, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def mask_inputs(weight_OC: Tensor, mask_C: Tensor | None) -> Tensor:
    """A weight (O, C, ...) with its input channels masked."""
    return weight_OC if mask_C is None else weight_OC * mask_C.view(1, -1, *[1] * (weight_OC.dim() - 2))


class MaskedConv(ConvNorm):
    """Stem or last convolution; its own output mask is left to the consumer (``out_mask``)."""

    def __init__(self, space: SearchSpace, slot: Slot) -> None:
        widest = space.block(slot, space.largest())
        super().__init__(
            widest.in_width, widest.out_width, kernel=widest.kernel, stride=widest.stride, activation=widest.activation
        )
        self.out_decision = slot.out_width
        self.width_mask = WidthMask([int(w) for w in space.decisions[slot.out_width].options])

    def out_mask(self, gates: Gates) -> Tensor | None:
        """The mask (O,) that the consumer must apply to its input; None when the width is fixed."""
        gate = gates[self.out_decision]
        return self.width_mask(gate) if len(gate) > 1 else None

    def masked_forward(self, x_NCHW: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        """The block on ``x``, of which only the channels under ``in_mask`` count."""
        y_NOHW: Tensor = self.act(self.norm(conv_with(self.conv, x_NCHW, mask_inputs(self.conv.weight, in_mask_C))))
        return y_NOHW


class MaskedHead(Head):
    """Pool and classifier of the supernet."""

    def masked_forward(self, pooled_NC: Tensor, in_mask_C: Tensor | None) -> Tensor:
        """Class scores from pooled features."""
        return F.linear(pooled_NC, mask_inputs(self.linear.weight, in_mask_C), self.linear.bias)


class MaskedInvertedResidual(InvertedResidual):
    """An inverted residual whose widths, kernel, squeeze-excite and presence are gates."""

    def __init__(self, space: SearchSpace, slot: Slot) -> None:
        assert slot.expansion is not None
        assert slot.kernel is not None
        assert slot.squeeze_excite is not None
        super().__init__(space.block(slot, space.largest()))
        self.slot = slot
        decisions = space.decisions
        in_widths = [int(w) for w in decisions[slot.in_width].options]
        out_widths = [int(w) for w in decisions[slot.out_width].options]
        hidden_widths = [round8(c * e) for c in in_widths for e in decisions[slot.expansion].options]
        self.out_mask = WidthMask(out_widths)
        self.hidden_mask = WidthMask(hidden_widths)
        self.squeeze_mask = WidthMask([round8(width / SE_REDUCTION) for width in hidden_widths])
        self.kernels: Tensor
        self.register_buffer(
            "kernels", centred_kernels([int(k) for k in decisions[slot.kernel].options]), persistent=False
        )
        self.se_values = decisions[slot.squeeze_excite].options
        # A shortcut exists where widths agree; with tied widths they always do.
        self.tied = slot.in_width == slot.out_width
        agrees = agreement(in_widths, out_widths)
        self.has_shortcut = slot.stride == 1 and bool(agrees.any())
        self.agrees: Tensor
        self.register_buffer("agrees", agrees, persistent=False)

    def masked_forward(self, x_NCHW: Tensor, gates: Gates, in_mask_C: Tensor | None) -> Tensor:
        """The block on ``x`` under ``gates``; see the head of this file for where the masks go.

        Args:
            x_NCHW: the input; masked already unless ``in_mask_C`` is given.
            gates: one vector for each decision of the space.
            in_mask_C: a mask that the producer left to this block.
        """
        joint = torch.outer(gates[self.slot.in_width], gates[self.slot.expansion or 0])
        hidden_mask_E = self.hidden_mask(joint)

        expand = self.expand
        assert isinstance(expand, ConvNorm)
        hidden_NEHW = conv_with(expand.conv, x_NCHW, mask_inputs(expand.conv.weight, in_mask_C))
        hidden_NEHW = expand.act(expand.norm(hidden_NEHW))
        hidden_NEHW = conv_with(self.depthwise.conv, hidden_NEHW, self._depthwise_weight(gates))
        hidden_NEHW = self.depthwise.act(self.depthwise.norm(hidden_NEHW))
        if self.se is not None:
            hidden_NEHW = hidden_NEHW * self._se_factors(self.se, hidden_NEHW, gates, joint, hidden_mask_E)

        conv = self.project.conv
        y_NOHW = conv_with(conv, hidden_NEHW, mask_inputs(conv.weight, hidden_mask_E))
        out_mask_O = self.out_mask(gates[self.slot.out_width])
        if self.slot.skip is not None:
            out_mask_O = out_mask_O * gates[self.slot.skip][0]
        y_NOHW = scaled_batch_norm(self.project.norm, y_NOHW, out_mask_O)
        return self._add_shortcut(x_NCHW, y_NOHW, gates, in_mask_C) if self.has_shortcut else y_NOHW

    def _depthwise_weight(self, gates: Gates) -> Tensor:
        weight_E1KK = self.depthwise.conv.weight
        if len(self.kernels) == 1:
            return weight_E1KK
        gate = gates[self.slot.kernel or 0]
        mask_KK: Tensor = torch.tensordot(gate, self.kernels.to(gate.dtype), dims=1)
        return weight_E1KK * mask_KK

    def _se_factors(
        self, se: SqueezeExcite, hidden_NEHW: Tensor, gates: Gates, joint: Tensor, hidden_mask_E: Tensor
    ) -> Tensor:
        pooled_NE11 = F.adaptive_avg_pool2d(hidden_NEHW, 1)
        squeezed = se.act(conv_with(se.squeeze, pooled_NE11, mask_inputs(se.squeeze.weight, hidden_mask_E)))
        excite_weight = mask_inputs(se.excite.weight, self.squeeze_mask(joint))
        factors_NE11: Tensor = se.gate(conv_with(se.excite, squeezed, excite_weight))
        if len(self.se_values) == 1:
            return factors_NE11
        gate = gates[self.slot.squeeze_excite or 0]
        return factors_NE11 * gate[1] + gate[0]

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
