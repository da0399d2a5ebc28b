"""From the units of a model to a `ChildSpec` and the weights of its network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.importing.units import Block, Dense, Element, Pool, Squeeze, Unit, conv_units, elements, refuse
from dmask_mobile.records.block import NORM_EPS, BlockSpec
from dmask_mobile.records.child import MAX_NAME, ChildSpec
from dmask_mobile.records.names import as_name

State = dict[str, Tensor]


class Part(NamedTuple):
    """One block, and its weights by the names that our module has for them."""

    spec: dict[str, Any]
    state: State


class ImportedNetwork(NamedTuple):
    """A network as our blocks, and the weights of its `ChildNetwork`."""

    child: ChildSpec
    state: State


def import_network(model: nn.Module, resolution: int, name: str) -> ImportedNetwork:
    """The network that ``model`` is, by our blocks.

    Raises:
        DmaskError: naming the module that cannot be taken over, and the reason.
    """
    found = elements(model)
    trunk, rest = _until_pooled(found)
    parts = [*_trunk(trunk), _head(rest, model)]
    common = _common(found, model)
    blocks = tuple(BlockSpec(**(part.spec | (common if part.spec["kind"] != "head" else {}))) for part in parts)
    child = ChildSpec(name=as_name(name, MAX_NAME), resolution=resolution, classes=blocks[-1].out_width, blocks=blocks)
    state = {f"blocks.{n}.{key}": value.clone() for n, part in enumerate(parts) for key, value in part.state.items()}
    return ImportedNetwork(child, state)


def _until_pooled(found: Sequence[Element]) -> tuple[Sequence[Element], Sequence[Element]]:
    """What comes before the pooled features, and what comes after: some models pool without a module."""
    for number, element in enumerate(found):
        if isinstance(element, Pool | Dense):
            return found[:number], found[number + isinstance(element, Pool) :]
    return found, []


def _common(found: Sequence[Element], model: nn.Module) -> dict[str, Any]:
    """Epsilon and padding, which all blocks have in common."""
    units = [unit for element in found for unit in _units_of(element)]
    epsilons = {unit.norm.eps: unit for unit in units if unit.norm is not None}
    paddings = {unit.pads_same: unit for unit in units if unit.pads_same is not None}
    for what, by_value in (("epsilons of batch norms", epsilons), ("paddings", paddings)):
        if len(by_value) > 1:
            names = " and ".join(unit.name for unit in list(by_value.values())[:2])
            raise refuse("", model, f"{names} have different {what}")
    return {"norm_eps": next(iter(epsilons), NORM_EPS), "padding": "same" if True in paddings else "symmetric"}


def _units_of(element: Element) -> list[Unit]:
    if isinstance(element, Block):
        return list(conv_units(element.units))
    return [element] if isinstance(element, Unit) else []


def _trunk(found: Sequence[Element]) -> list[Part]:
    parts: list[Part] = []
    waiting: list[Unit | Squeeze] = []  # for the rest of a block that is spelled out
    for element in found:
        if isinstance(element, Block):
            _check_none_waits(waiting)
            parts.append(_part(element.units, element.shortcut, element.name))
        elif isinstance(element, Unit | Squeeze):
            waiting.append(element)
            if isinstance(element, Unit) and element.form != "depthwise" and not _starts_more(waiting):
                parts.append(_part(waiting, False, element.name))
                waiting = []
        else:
            raise DmaskError(f"'{element.name}' stands among the convolutions", "import a network for classification")
    _check_none_waits(waiting)
    if not parts or parts[0].spec["kind"] != "conv":
        raise DmaskError("the network does not begin with a convolution", "import a network of a supported family")
    return parts


def _starts_more(waiting: Sequence[Unit | Squeeze]) -> bool:
    """Whether a depthwise convolution waits for its projection, which has no activation."""
    last = waiting[-1]
    return len(waiting) > 1 and isinstance(last, Unit) and last.activation is not None


def _check_none_waits(waiting: Sequence[Unit | Squeeze]) -> None:
    for unit in waiting:
        module = unit.conv if isinstance(unit, Unit) else unit.reduce
        raise refuse(unit.name, module, "no block of the known kinds has it there")


def _part(found: Sequence[Unit | Squeeze], shortcut: bool, name: str) -> Part:
    """The block that units make."""
    units = list(conv_units(list(found)))
    squeezes = [(place, unit) for place, unit in enumerate(found) if isinstance(unit, Squeeze)]
    first, last = units[0], units[-1]
    if len(units) == 1 and not squeezes and first.form != "depthwise":
        return _conv(first, shortcut)
    if last.form != "pointwise" or last.activation is not None or last.stride != 1:
        raise refuse(last.name, last.conv, "the last convolution of a block must be 1 x 1, without an activation")
    if len(squeezes) > 1 or (squeezes and squeezes[0][0] != len(found) - 2):
        raise refuse(squeezes[0][1].name, squeezes[0][1].reduce, "squeeze-excite must stand before the projection")
    spec, roles = _hidden(units[:-1], name)
    spec |= {"in_width": first.conv.in_channels, "out_width": last.conv.out_channels, "residual": shortcut}
    state = {key: value for role, unit in (roles | {"project": last}).items() for key, value in _state(unit, role)}
    if squeezes:
        squeeze = squeezes[0][1]
        activation = None if squeeze.activation == spec["activation"] else squeeze.activation
        width = squeeze.reduce.out_channels
        spec |= {"se_width": width, "se_gate": squeeze.gate, "se_activation": activation}
        for role, conv in (("squeeze", squeeze.reduce), ("excite", squeeze.expand)):
            if conv.bias is None:
                raise refuse(squeeze.name, conv, "its convolutions need biases")
            state |= {f"se.{role}.weight": conv.weight.detach(), f"se.{role}.bias": conv.bias.detach()}
    return Part(spec, state)


def _conv(unit: Unit, shortcut: bool) -> Part:
    if unit.activation is None:
        raise refuse(unit.name, unit.conv, "a convolution by itself needs an activation")
    spec = {
        "kind": "conv",
        "in_width": unit.conv.in_channels,
        "out_width": unit.conv.out_channels,
        "kernel": unit.kernel,
        "stride": unit.stride,
        "activation": unit.activation,
        "residual": shortcut,
    }
    return Part(spec, dict(_state(unit, "")))


def _hidden(units: Sequence[Unit], name: str) -> tuple[dict[str, Any], dict[str, Unit]]:
    """What the convolutions before the projection say of a block, and their places in our module."""
    forms = tuple(unit.form for unit in units)
    places = {
        ("depthwise",): ("depthwise",),
        ("pointwise",): ("expand",),
        ("dense",): ("expand",),
        ("pointwise", "depthwise"): ("expand", "depthwise"),
        ("depthwise", "pointwise"): ("start", "expand"),
        ("depthwise", "pointwise", "depthwise"): ("start", "expand", "depthwise"),
    }
    if forms not in places:
        module = units[0].conv if units else nn.Identity()
        raise refuse(name, module, f"no block is made of {', '.join(forms) or 'one'} and a projection")
    roles = dict(zip(places[forms], units, strict=True))
    for role, unit in roles.items():
        if (unit.activation is None) != (role == "start"):
            raise refuse(
                unit.name, unit.conv, f"a convolution in this place ({role}) has an activation, or must have one"
            )
    activations = {unit.activation for unit in units if unit.activation is not None}
    if len(activations) > 1:
        raise refuse(name, units[0].conv, f"its activations differ: {', '.join(sorted(activations))}")
    depthwise, start, expand = roles.get("depthwise"), roles.get("start"), roles.get("expand")
    fused = forms == ("dense",)
    strided = expand if fused else depthwise or start
    for unit in units:
        if unit is not strided and unit.stride != 1:
            raise refuse(unit.name, unit.conv, "only the last depthwise convolution of a block may have stride 2")
    spec = {
        "kind": "fused_inverted_residual" if fused else "inverted_residual",
        "hidden_width": units[-1].conv.out_channels,
        "expand": expand is not None,
        "depthwise": fused or depthwise is not None,
        "start_kernel": start.kernel if start is not None else 0,
        "kernel": strided.kernel if strided is not None and strided is not start else 1,
        "stride": strided.stride if strided is not None else 1,
        "activation": activations.pop(),
    }
    return spec, roles


def _state(unit: Unit, role: str) -> list[tuple[str, Tensor]]:
    """The weights of a convolution and its norm as our `ConvNorm` has them.

    A bias before a batch norm is part of what the norm subtracts; a scale behind it is part of the norm's own.
    """
    norm, prefix = unit.norm, f"{role}." if role else ""
    if norm is None or norm.running_mean is None or norm.running_var is None:
        raise refuse(unit.name, unit.conv, "a convolution needs a batch norm behind it")
    mean = norm.running_mean if unit.conv.bias is None else norm.running_mean - unit.conv.bias.detach()
    scale = 1.0 if unit.scale is None else unit.scale
    found = {
        "conv.weight": unit.conv.weight,
        "norm.weight": norm.weight * scale,
        "norm.bias": norm.bias * scale,
        "norm.running_mean": mean,
        "norm.running_var": norm.running_var,
    }
    return [(f"{prefix}{key}", value.detach()) for key, value in found.items()]


def _head(rest: Sequence[Element], model: nn.Module) -> Part:
    """The classifier, with a hidden layer if there is one."""
    hidden = None if len(rest) < 2 else rest[0]
    last = rest[-1] if rest else None
    if not isinstance(last, Dense) or len(rest) > 2 or not (hidden is None or isinstance(hidden, Unit | Dense)):
        raise refuse("", model, "behind the pooled features come at most one hidden layer and a linear classifier")
    linear = last.linear
    if linear.bias is None or last.activation is not None:
        raise refuse(last.name, linear, "the classifier has a bias, and no activation behind it")
    spec = {"kind": "head", "in_width": linear.in_features, "out_width": linear.out_features}
    state = {"linear.weight": linear.weight.detach(), "linear.bias": linear.bias.detach()}
    if hidden is not None:
        weight, bias, activation = _hidden_layer(hidden)
        spec |= {"in_width": weight.shape[1], "hidden_width": weight.shape[0], "activation": activation}
        state |= {"hidden.weight": weight, "hidden.bias": bias}
    return Part(spec, state)


def _hidden_layer(hidden: Unit | Dense) -> tuple[Tensor, Tensor, str]:
    """Weight, bias and activation of the head's hidden layer; a batch norm is folded into it."""
    module: nn.Conv2d | nn.Linear = hidden.linear if isinstance(hidden, Dense) else hidden.conv
    if hidden.activation is None or (isinstance(hidden, Unit) and hidden.form != "pointwise"):
        raise refuse(hidden.name, module, "a hidden layer of the head is 1 x 1, with an activation")
    weight = module.weight.detach().flatten(1)
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
    norm = hidden.norm if isinstance(hidden, Unit) else None
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        weight, bias = weight * scale[:, None], (bias - norm.running_mean) * scale + norm.bias.detach()
    return weight, bias, hidden.activation
