"""The leaves of a model as units: a convolution with its norm and activation, squeeze-excite, a linear layer.

A model is read in the order in which its modules were registered, which is that in which these families run them.
What is read in the wrong order gives other outputs, and `importing.proof` finds that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import timm.layers
import timm.layers.activations
import timm.models._efficientnet_blocks as timm_blocks
import torchvision.models.efficientnet as torchvision_efficientnet
import torchvision.models.mnasnet as torchvision_mnasnet
import torchvision.models.mobilenetv2 as torchvision_v2
import torchvision.models.mobilenetv3 as torchvision_v3
import torchvision.ops
from torch import Tensor, nn

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.block import Activation, Gate

SHORTCUTS: dict[type[nn.Module], str] = {
    timm_blocks.ConvBnAct: "has_skip",
    timm_blocks.DepthwiseSeparableConv: "has_skip",
    timm_blocks.InvertedResidual: "has_skip",
    timm_blocks.EdgeResidual: "has_skip",
    timm_blocks.UniversalInvertedResidual: "has_skip",
    torchvision_v2.InvertedResidual: "use_res_connect",
    torchvision_v3.InvertedResidual: "use_res_connect",
    torchvision_efficientnet.MBConv: "use_res_connect",
    torchvision_efficientnet.FusedMBConv: "use_res_connect",
    torchvision_mnasnet._InvertedResidual: "apply_residual",
}
"""The blocks that are understood, and what says whether they have a shortcut."""

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hswish",
    timm.layers.activations.Swish: "silu",
    timm.layers.activations.HardSwish: "hswish",
}
GATES: dict[type[nn.Module], Gate] = {
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hsigmoid",
    timm.layers.activations.Sigmoid: "sigmoid",
    timm.layers.activations.HardSigmoid: "hsigmoid",
}
POOLS = (nn.AdaptiveAvgPool2d, timm.layers.SelectAdaptivePool2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Flatten, timm.layers.DropPath, torchvision.ops.StochasticDepth)
"""What does nothing when a network is evaluated, apart from the shape."""
CONTAINERS = (nn.Sequential, torchvision.ops.Conv2dNormActivation, timm.layers.ConvNormAct)


def refuse(name: str, module: nn.Module, reason: str) -> DmaskError:
    """The error for a module that cannot be taken over."""
    return DmaskError(
        f"'{shown(name)}' ({type(module).__name__}) cannot be taken over: {reason}",
        "import a network of convolutions, (fused, universal) inverted residuals and depthwise separable convolutions",
    )


@dataclass
class Unit:
    """A convolution with what follows it; ``scale``: of its output channels, folded into the norm."""

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None
    activation: Activation | None = None
    scale: Tensor | None = None

    @property
    def form(self) -> Literal["depthwise", "pointwise", "dense"]:
        """What kind of convolution it is."""
        if self.conv.groups > 1:
            return "depthwise"
        return "pointwise" if self.conv.kernel_size == (1, 1) else "dense"

    @property
    def kernel(self) -> int:
        """Its height and width."""
        return self.conv.kernel_size[0]

    @property
    def stride(self) -> int:
        """In both directions."""
        return self.conv.stride[0]

    @property
    def pads_same(self) -> bool | None:
        """Whether it pads as TensorFlow does; None where there is no difference."""
        if self.stride == 1 or self.kernel == 1:
            return None
        return type(self.conv) is timm.layers.Conv2dSame

    def check(self) -> None:
        """Refuses a convolution that no block has.

        Raises:
            DmaskError: naming it.
        """
        conv, name = self.conv, self.name
        if type(conv) not in (nn.Conv2d, timm.layers.Conv2dSame):
            raise refuse(name, conv, "this kind of convolution is not known")
        if conv.groups not in (1, conv.in_channels) or (conv.groups > 1 and conv.in_channels != conv.out_channels):
            raise refuse(name, conv, f"{conv.groups} groups of {conv.in_channels} channels are not depthwise")
        kernel, padding = self.kernel, (self.kernel // 2,) * 2
        pads = type(conv) is timm.layers.Conv2dSame or conv.padding == padding
        is_plain = conv.kernel_size == (kernel, kernel) and conv.stride in ((1, 1), (2, 2)) and conv.dilation == (1, 1)
        if not (is_plain and kernel % 2 and pads):
            raise refuse(
                name,
                conv,
                f"kernel {conv.kernel_size}, stride {conv.stride}, padding {conv.padding} and dilation {conv.dilation}"
                " are not those of a square odd kernel with as many pixels after as before it",
            )


class Squeeze(NamedTuple):
    """Squeeze-excite: two convolutions of 1 x 1, and what follows each of them."""

    name: str
    reduce: nn.Conv2d
    expand: nn.Conv2d
    activation: Activation
    gate: Gate


class Pool(NamedTuple):
    """The average over all pixels."""

    name: str


@dataclass
class Dense:
    """A linear layer with the activation that follows it."""

    name: str
    linear: nn.Linear
    activation: Activation | None = None


class Block(NamedTuple):
    """A block that is known, by its units."""

    name: str
    module: nn.Module
    units: list[Unit | Squeeze]
    shortcut: bool


Element = Unit | Squeeze | Pool | Dense | Block


def elements(model: nn.Module, prefix: str = "") -> list[Element]:
    """What a model consists of, in order.

    Raises:
        DmaskError: for a module that is not understood.
    """
    found: list[Element] = []
    for name, module in model.named_children():
        _add(found, f"{prefix}{name}", module)
    for element in found:
        if isinstance(element, Unit):
            element.check()
    return found


def _add(found: list[Element], name: str, module: nn.Module) -> None:
    last = found[-1] if found else None
    activation = ACTIVATIONS.get(type(module))
    if type(module) in SHORTCUTS:
        found.append(_block(name, module))
    elif isinstance(module, nn.Conv2d):
        found.append(Unit(name, module))
    elif isinstance(module, nn.BatchNorm2d):
        _add_norm(last, name, module)
    elif activation is not None:
        if not isinstance(last, Unit | Dense) or last.activation is not None:
            raise refuse(name, module, "an activation belongs behind a convolution or its norm")
        last.activation = activation
    elif (squeeze := _squeeze(name, module)) is not None:
        found.append(squeeze)
    elif isinstance(module, timm.layers.LayerScale2d) and isinstance(last, Unit):
        last.scale = module.gamma.detach()
    elif isinstance(module, nn.Linear):
        found.append(Dense(name, module))
    elif isinstance(module, POOLS):
        _check_pool(name, module)
        found.append(Pool(name))
    elif isinstance(module, CONTAINERS) or (not list(module.parameters()) and list(module.children())):
        for child_name, child in module.named_children():
            _add(found, f"{name}.{child_name}", child)
    elif not isinstance(module, NOTHING):
        raise refuse(name, module, "this kind of module is not known")


def _block(name: str, module: nn.Module) -> Block:
    units: list[Unit | Squeeze] = []
    for element in elements(module, f"{name}."):
        if not isinstance(element, Unit | Squeeze):
            raise refuse(element.name, module, "a block holds convolutions and squeeze-excite only")
        units.append(element)
    return Block(name, module, units, bool(getattr(module, SHORTCUTS[type(module)])))


def _add_norm(last: Element | None, name: str, module: nn.BatchNorm2d) -> None:
    if not isinstance(last, Unit) or last.norm is not None:
        raise refuse(name, module, "a batch norm belongs behind a convolution")
    if module.running_mean is None or module.weight is None:
        raise refuse(name, module, "a batch norm needs running statistics, scales and shifts")
    last.norm = module
    inside = getattr(module, "act", None)
    if inside is not None and not isinstance(inside, nn.Identity):
        if type(inside) not in ACTIVATIONS:
            raise refuse(f"{name}.act", inside, f"the activations are {', '.join(sorted(set(ACTIVATIONS.values())))}")
        last.activation = ACTIVATIONS[type(inside)]


def _squeeze(name: str, module: nn.Module) -> Squeeze | None:
    """The squeeze-excite that a module is; None where it is none."""
    forms = (
        (timm_blocks.SqueezeExcite, "conv_reduce", "conv_expand", "act1", "gate"),
        (timm.layers.SqueezeExcite, "fc1", "fc2", "act", "gate"),
        (torchvision.ops.SqueezeExcitation, "fc1", "fc2", "activation", "scale_activation"),
    )
    for kind, reduce, expand, activation, gate in forms:
        if isinstance(module, kind):
            found_activation, found_gate = type(getattr(module, activation)), type(getattr(module, gate))
            if found_activation not in ACTIVATIONS or found_gate not in GATES:
                raise refuse(name, module, f"its activation {found_activation.__name__} or gate {found_gate.__name__}")
            if getattr(module, "add_maxpool", False) or not isinstance(
                getattr(module, "bn", nn.Identity()), nn.Identity
            ):
                raise refuse(name, module, "a squeeze-excite with a norm or a maximum is not known")
            return Squeeze(
                name, getattr(module, reduce), getattr(module, expand), ACTIVATIONS[found_activation], GATES[found_gate]
            )
    return None


def _check_pool(name: str, module: nn.Module) -> None:
    kind = getattr(module, "pool_type", "avg")
    size = getattr(module, "output_size", 1)
    if kind not in ("avg", "fast", "fastavg") or size not in (1, (1, 1)):
        raise refuse(name, module, f"only the average over all pixels is known, not '{kind}' to {size}")


def conv_units(found: list[Unit | Squeeze]) -> Iterator[Unit]:
    """The convolutions among units."""
    return (unit for unit in found if isinstance(unit, Unit))
