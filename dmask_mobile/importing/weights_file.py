"""Reads the weights in a user's file and loads them into their model."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.block import MAX_WIDTH

logger = logging.getLogger(__name__)

COUNTER = "num_batches_tracked"
NESTED = ("state_dict", "model_state_dict", "model_state", "model")  # where training scripts put the weights


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, or in a file of ``torch.save`` that contains only tensors.

    Raises:
        DmaskError: if the file is absent or damaged, contains more than tensors, or a tensor that cannot be a weight.
    """
    fix = "give a safetensors file, or a state dict that was written with torch.save(model.state_dict(), FILE)"
    if not path.is_file():
        raise DmaskError(f"no file '{path}'", fix)
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DmaskError(
            f"'{path}' contains objects other than tensors and is not loaded, because loading them could run code", fix
        ) from error
    except Exception as error:  # the readers raise almost anything for a damaged file
        raise DmaskError(f"'{path}' cannot be loaded: {shown(' '.join(str(error).split()))}", fix) from error
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DmaskError(f"'{path}' contains no state dict: names with tensors", fix)
    found = {str(name): value for name, value in content.items()}
    check_values(found, path)
    if not any(value.ndim for name, value in found.items() if not name.endswith(COUNTER)):
        raise DmaskError(f"'{path}' contains no weights", fix)
    return found


def check_values(weights: Mapping[str, Tensor], source: object) -> None:
    """Checks that all tensors can be weights.

    Raises:
        DmaskError: naming the first one that is not dense and real, or contains NaN or infinity.
    """
    for name, value in weights.items():
        if problem := _problem_of(value):
            raise DmaskError(
                f"'{shown(source)}': the tensor '{shown(name)}' {problem}", "give the weights of a trained network"
            )


def _problem_of(value: Tensor) -> str | None:
    """The reason why a tensor cannot be a weight; None if it can."""
    if value.is_meta:
        return "has no values (device meta)"
    if value.is_quantized or value.is_nested or value.layout != torch.strided:
        kind = "quantized" if value.is_quantized else "nested" if value.is_nested else str(value.layout)
        return f"is {kind}, not a dense tensor"
    if value.is_complex():
        return f"has complex numbers ({value.dtype})"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"has {value.numel():,} elements that share memory (an expanded tensor)"
    if value.is_floating_point() and not bool(value.float().isfinite().all()):
        return "contains NaN or infinity"
    return None


def num_classes_of(weights: Mapping[str, Tensor], path: Path) -> int:
    """The number of classes of the classifier, which is the last of the weights.

    Raises:
        DmaskError: if the last tensor cannot belong to a classifier.
    """
    name, last = [(name, value) for name, value in weights.items() if value.ndim and not name.endswith(COUNTER)][-1]
    if not 1 <= len(last) <= MAX_WIDTH:
        raise DmaskError(
            f"'{path}': the last tensor '{shown(name)}' has the shape {tuple(last.shape)}, but a classifier has 1 to"
            f" {MAX_WIDTH:,} classes",
            "give the weights of this model",
        )
    return len(last)


def load_into(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights into a model: by their names, or by their order if names differ and all shapes agree.

    Raises:
        DmaskError: naming the first tensor whose shape or kind of numbers does not fit.
    """
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(COUNTER)}
    given = {name: value for name, value in weights.items() if not name.endswith(COUNTER)}
    by_name = own.keys() == given.keys()
    if not by_name and len(own) == len(given):
        logger.warning(
            "'%s': the names differ from the model's; its %d tensors are matched by their order", path, len(given)
        )
    pairs = [(name, name) for name in own] if by_name else list(zip(own, given, strict=False))
    for mine, theirs in pairs:
        if own[mine].shape != given[theirs].shape:
            raise DmaskError(
                f"'{path}' does not fit: '{shown(theirs)}' has the shape {tuple(given[theirs].shape)}, but '{mine}' of"
                f" the model has {tuple(own[mine].shape)}",
                "give the weights of this model",
            )
        if own[mine].is_floating_point() != given[theirs].is_floating_point():
            raise DmaskError(
                f"'{path}' does not fit: '{shown(theirs)}' is {given[theirs].dtype}, but '{mine}' of the model is"
                f" {own[mine].dtype}",
                "give the weights of this model",
            )
    if len(own) != len(given):
        longer, which = (own, "the model") if len(own) > len(given) else (given, f"'{path}'")
        raise DmaskError(
            f"'{path}' does not fit: it contains {len(given)} tensors, the model {len(own)};"
            f" only {which} has '{shown(list(longer)[min(len(own), len(given))])}'",
            "give the weights of this model",
        )
    model.load_state_dict({mine: given[theirs] for mine, theirs in pairs}, strict=False)
