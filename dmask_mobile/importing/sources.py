"""The models that users name: ``timm:NAME``, ``torchvision:NAME``, ``module:function``. Nothing is downloaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from torch import nn

from dmask_mobile.errors import DmaskError, code_of_user, shown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HOW_TO_NAME = "give timm:NAME, torchvision:NAME or module:function, whose function returns a model"


class OpenedModel(NamedTuple):
    """A built model and how it sees images: pixels of a side, mean and deviation of each channel.

    ``crop``: the share of the shorter side that the central square keeps.
    """

    model: nn.Module
    name: str
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    has_weights: bool
    crop: float = 1.0


def open_model(source: str, classes: int | None = None) -> OpenedModel:
    """The model that ``source`` names, for ``classes`` classes; None for its own number.

    Models of timm and torchvision have random weights: their own would have to be downloaded.

    Raises:
        DmaskError: for an unknown name, and for a function that fails or returns no model.
    """
    kind, _, name = source.partition(":")
    if not kind or not name:
        raise DmaskError(f"no model '{shown(source)}'", HOW_TO_NAME)
    sized = {} if classes is None else {"num_classes": classes}
    opened = {"timm": _of_timm, "torchvision": _of_torchvision}.get(kind)
    return opened(name, sized) if opened is not None else _of_function(kind, name)


def _of_timm(name: str, sized: dict[str, int]) -> OpenedModel:
    import timm

    if not timm.is_model(name):
        raise DmaskError(f"timm has no model '{shown(name)}'", "give one of timm.list_models()")
    model = timm.create_model(name, pretrained=False, **sized)
    config = model.pretrained_cfg
    mean, std, crop = tuple(config["mean"]), tuple(config["std"]), config.get("crop_pct") or 1.0
    return OpenedModel(model, name, config["input_size"][-1], mean, std, False, crop)


def _of_torchvision(name: str, sized: dict[str, int]) -> OpenedModel:
    from torchvision import models

    if name not in models.list_models(models):
        raise DmaskError(
            f"torchvision has no model '{shown(name)}' for images", "give one of torchvision.models.list_models()"
        )
    model = models.get_model(name, weights=None, **sized)
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    seen = None if weights is None else weights.transforms()
    resolution = 224 if seen is None else seen.crop_size[0]
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if seen is None else (tuple(seen.mean), tuple(seen.std))
    crop = 1.0 if seen is None else resolution / seen.resize_size[0]
    return OpenedModel(model, name, resolution, mean, std, False, crop)


def _of_function(module_name: str, function_name: str) -> OpenedModel:
    """The model that a user's function returns; it may say ``pretrained_cfg`` as timm's models do."""
    source = f"{module_name}:{function_name}"
    sys.path.append(str(Path.cwd()))
    try:
        with code_of_user(f"model '{shown(source)}': making it", f"{HOW_TO_NAME}; it must not need the network"):
            model = getattr(importlib.import_module(module_name), function_name)()
    finally:
        sys.path.pop()
    if not isinstance(model, nn.Module):
        raise DmaskError(f"'{shown(source)}' returned {type(model).__name__}, not a torch.nn.Module", HOW_TO_NAME)
    with code_of_user(f"model '{shown(source)}': its pretrained_cfg", "give it a dictionary as models of timm have"):
        config = getattr(model, "pretrained_cfg", {})
        resolution = int(config.get("input_size", (3, 224, 224))[-1])
        mean, std = tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
        crop = float(config.get("crop_pct") or 1.0)
    return OpenedModel(model, function_name, resolution, mean, std, True, crop)
