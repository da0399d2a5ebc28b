"""Teachers: networks whose scores a child learns from (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dmask_mobile.data.images import Normalization
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.recipe import Distillation

Teacher = Callable[[Tensor], Tensor]


def distillation_loss(scores_NK: Tensor, taught_NK: Tensor, temperature: float) -> Tensor:
    """The sum over images of ``T^2 KL(teacher || student)`` at temperature T."""
    student_NK = F.log_softmax(scores_NK / temperature, dim=1)
    teacher_NK = F.log_softmax(taught_NK / temperature, dim=1)
    return temperature**2 * F.kl_div(student_NK, teacher_NK, reduction="sum", log_target=True)


def network_as_teacher(network: nn.Module, device: torch.device) -> Teacher:
    """A network of ours: it sees images as the child does."""
    network = network.to(device).eval()

    @torch.no_grad()
    def teach(images_NCHW: Tensor) -> Tensor:
        scores: Tensor = network(images_NCHW)
        return scores

    return teach


def timm_teacher(settings: Distillation, classes: int, data: Normalization, device: torch.device) -> Teacher:
    """A model of timm with weights from a safetensors file; images get its own normalization.

    Raises:
        DmaskError: for a model that timm does not know, and weights that are not there or do not fit.
    """
    import timm

    name, path = settings.teacher.removeprefix("timm:"), Path(settings.weights or "")
    if not timm.is_model(name):
        raise DmaskError(f"timm has no model '{shown(name)}'", "give one of timm.list_models()")
    network = timm.create_model(name, pretrained=False, num_classes=classes)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DmaskError(
            f"teacher '{shown(name)}': weights '{path}' do not load: {shown(' '.join(str(error).split()))}",
            f"give a safetensors file of that model with {classes} classes",
        ) from error
    teach = network_as_teacher(network, device)
    config = network.pretrained_cfg
    own_mean, own_std, mean, std = (
        torch.tensor(values, device=device).view(1, -1, 1, 1)
        for values in (data.mean, data.std, config["mean"], config["std"])
    )
    return lambda images_NCHW: teach((images_NCHW * own_std + own_mean - mean) / std)
