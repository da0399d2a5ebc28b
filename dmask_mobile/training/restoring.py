"""Restores the parts of a checkpoint. The file may be untrusted, so everything is checked before it is used.

Every function here raises ValueError with the rule and the value; the caller adds the name of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmask_mobile.errors import shown
from dmask_mobile.ranks import Share


def require_keys(found: object, keys: frozenset[str], what: str) -> dict[str, Any]:
    """``found`` as a dict with exactly ``keys``."""
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be a mapping, got {type(found).__name__}")
    if missing := sorted(keys - set(found)):
        raise ValueError(f"{what} has no '{missing[0]}'")
    if unknown := sorted(map(str, set(found) - keys)):
        raise ValueError(f"{what} has the unknown key '{shown(unknown[0])}'")
    return found


def whole_number(found: object, most: int, what: str) -> int:
    """``found`` as an int in 0..``most``."""
    if type(found) is not int or not 0 <= found <= most:
        raise ValueError(f"{what} must be an integer from 0 to {most}, got {shown(repr(found))}")
    return found


def finite_number(found: object, what: str) -> float:
    """``found`` as a finite float."""
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"{what} must be a finite number, got {shown(repr(found))}")
    return float(found)


def restore_module(module: nn.Module, found: object, what: str) -> None:
    """Loads a state dict whose names, shapes and types are the module's own, with finite numbers."""
    own = module.state_dict()
    state = require_keys(found, frozenset(own), what)
    for name, value in own.items():
        _check_tensor(state[name], value.shape, value.dtype, f"{what}: '{name}'")
    module.load_state_dict(state)


def restore_optimizer(optimizer: torch.optim.Optimizer, found: object, what: str) -> None:
    """Loads the state of an optimizer; its groups and the shapes of its tensors must match the optimizer's own."""
    content = require_keys(found, frozenset(("state", "param_groups")), what)
    own = optimizer.state_dict()["param_groups"]
    groups = content["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own):
        raise ValueError(f"{what} must have {len(own)} groups of parameters")
    merged = [_group(group, own_group, what) for group, own_group in zip(groups, own, strict=True)]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = content["state"]
    if not isinstance(state, dict):
        raise ValueError(f"{what}: its state must be a mapping, got {type(state).__name__}")
    for number, values in state.items():
        index = whole_number(number, len(parameters) - 1, f"{what}: the number of a parameter")
        if not isinstance(values, dict):
            raise ValueError(f"{what}: the state of parameter {index} must be a mapping")
        for name, value in values.items():
            if value is None and name == "momentum_buffer":
                continue  # the parameter has not been updated yet
            if name == "step" and type(value) is int:
                continue
            shape = torch.Size() if name == "step" else parameters[index].shape
            _check_tensor(value, shape, parameters[index].dtype, f"{what}: '{shown(name)}' of parameter {index}")
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def restore_rows(buffers: list[Tensor], found: object, share: Share, what: str) -> None:
    """Fills ``buffers`` from this process's row, or from the mean of all rows if the number of processes changed."""
    size = sum(buffer.numel() for buffer in buffers)
    rows = found.shape[0] if isinstance(found, Tensor) and found.dim() else 1
    _check_tensor(found, torch.Size([rows, size]), torch.float32, what)
    assert isinstance(found, Tensor)
    row = found[share.rank] if rows == share.processes else found.mean(0)
    values_of = torch.split(row, [buffer.numel() for buffer in buffers])
    for buffer, values in zip(buffers, values_of, strict=True):
        buffer.copy_(values.view_as(buffer))


def restore_generator(generator: torch.Generator, found: object, what: str) -> None:
    """Sets a generator's state."""
    own = generator.get_state()
    _check_tensor(found, own.shape, own.dtype, what)
    assert isinstance(found, Tensor)
    try:
        generator.set_state(found)
    except RuntimeError as error:
        raise ValueError(f"{what} is not the state of a generator: {error}") from error


def first_difference(found: object, own: object, name: str = "") -> str | None:
    """The first difference between nested mappings: the dotted name and both values; None if they are equal.

    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    'a.b is 1 there, 2 now'
    """
    if isinstance(found, Mapping) and isinstance(own, Mapping):
        for key in [*own, *(key for key in found if key not in own)]:
            below = f"{name}.{key}" if name else str(key)
            difference = first_difference(found.get(key), own.get(key), below)
            if difference is not None:
                return difference
        return None
    if _plain(found) == _plain(own):
        return None
    return f"{shown(name)} is {shown(repr(found))} there, {shown(repr(own))} now"


def _plain(value: object) -> object:
    """The value with tuples replaced by lists, because files have no tuples."""
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _group(found: object, own: dict[str, Any], what: str) -> dict[str, Any]:
    """The optimizer's own settings of a group with the learning rate of the checkpoint, which the schedule changed."""
    if not isinstance(found, dict) or found.get("params") != own["params"]:
        raise ValueError(f"{what} belongs to other parameters")
    rate = finite_number(found.get("lr"), f"{what}: the learning rate")
    return {**own, "lr": rate}


def _check_tensor(found: object, shape: torch.Size, dtype: torch.dtype, what: str) -> None:
    if not isinstance(found, Tensor):
        raise ValueError(f"{what} must be a tensor, got {type(found).__name__}")
    if found.shape != shape or found.dtype != dtype or found.layout != torch.strided:
        kind = f"{dtype}".removeprefix("torch.")
        got = f"{found.dtype}".removeprefix("torch.")
        raise ValueError(f"{what} must be {kind} of shape {list(shape)}, got {got} of shape {list(found.shape)}")
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise ValueError(f"{what} contains values that are not finite")
