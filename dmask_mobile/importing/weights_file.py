"""Weights in a user's file, put into the model that they belong to."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dmask_mobile.errors import DmaskError, shown

logger = logging.getLogger(__name__)

COUNTER = "num_batches_tracked"
NESTED = ("state_dict", "model_state_dict", "model_state", "model")  # where training scripts put the weights


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, or in one of ``torch.save`` that holds nothing else.

    Raises:
        DmaskError: when it is absent, damaged or holds more than tensors.
    """
    fix = "give a safetensors file, or a state dict that was written with torch.save(model.state_dict(), FILE)"
    if not path.is_file():
        raise DmaskError(f"no file '{path}'", fix)
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DmaskError(f"'{path}' holds more than tensors: it is not loaded, it could run anything", fix) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise DmaskError(f"'{path}' does not load: {shown(' '.join(str(error).split()))}", fix) from error
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DmaskError(f"'{path}' holds no state dict: names with tensors", fix)
    return {str(name): value for name, value in content.items()}


def num_classes_of(weights: Mapping[str, Tensor]) -> int:
    """The classes of the classifier that weights end with."""
    last = [value for name, value in weights.items() if not name.endswith(COUNTER)][-1]
    return len(last)


def load_into(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights into a model: by their names, or by their order where names differ and all shapes agree.

    Raises:
        DmaskError: naming the first tensor that does not fit, and both shapes.
    """
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(COUNTER)}
    given = {name: value for name, value in weights.items() if not name.endswith(COUNTER)}
    by_name = own.keys() == given.keys()
    if not by_name and len(own) == len(given):
        logger.warning("'%s': the names differ from the model's; its %d tensors are taken in order", path, len(given))
    pairs = [(name, name) for name in own] if by_name else list(zip(own, given, strict=False))
    for mine, theirs in pairs:
        if own[mine].shape != given[theirs].shape:
            raise DmaskError(
                f"'{path}' does not fit: '{shown(theirs)}' has the shape {tuple(given[theirs].shape)}, the model's"
                f" '{mine}' {tuple(own[mine].shape)}",
                "give the weights of this very model",
            )
    if len(own) != len(given):
        longer, which = (own, "the model") if len(own) > len(given) else (given, f"'{path}'")
        raise DmaskError(
            f"'{path}' does not fit: it holds {len(given)} tensors, the model {len(own)};"
            f" '{shown(list(longer)[min(len(own), len(given))])}' is in {which} alone",
            "give the weights of this very model",
        )
    model.load_state_dict({mine: given[theirs] for mine, theirs in pairs}, strict=False)
