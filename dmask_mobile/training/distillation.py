"""Teachers: networks whose scores a child learns from (Hinton et al., 2015)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dmask_mobile.data.images import KnownNormalization, Normalization
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.recipe import Distillation
from dmask_mobile.training.checkpoint import content_digest


def distillation_loss(scores_NK: Tensor, taught_NK: Tensor, temperature: float) -> Tensor:
    """The sum over images of ``T^2 KL(teacher || student)`` at temperature T."""
    student_NK = F.log_softmax(scores_NK / temperature, dim=1)
    teacher_NK = F.log_softmax(taught_NK / temperature, dim=1)
    return temperature**2 * F.kl_div(student_NK, teacher_NK, reduction="sum", log_target=True)


class Teacher:
    """A trained network that maps the child's input images (N, 3, R, R) to scores (N, classes).

    Args:
        network: computes the scores.
        device: the device of the network.
        own: the normalization of the images that the network was trained on; the default is that of the child.
        data: the normalization of the child's images.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        own: Normalization | None = None,
        data: Normalization | None = None,
    ) -> None:
        self.network = network.to(device).eval()
        self.digest = content_digest(network.state_dict())
        self.scale = self.shift = None
        if own is not None and data is not None:
            own_mean, own_std, mean, std = (
                torch.tensor(values, device=device).view(1, -1, 1, 1)
                for values in (own.mean, own.std, data.mean, data.std)
            )
            self.scale, self.shift = std / own_std, (mean - own_mean) / own_std

    @torch.no_grad()
    def __call__(self, images_NCHW: Tensor) -> Tensor:
        if self.scale is not None and self.shift is not None:
            images_NCHW = images_NCHW * self.scale + self.shift
        scores: Tensor = self.network(images_NCHW)
        return scores


def timm_teacher(
    settings: Distillation, classes: int, data: Normalization, resolution: int, device: torch.device
) -> Teacher:
    """A model from timm with weights from a safetensors file; images get the normalization of that model.

    Args:
        settings: the model and its weights.
        classes: the number of classes of the data.
        data: the normalization of the child's images.
        resolution: the resolution of the child's images, in pixels.
        device: the device of the network.

    Raises:
        DmaskError: for a model that timm does not have or that does not accept such images, or weights that do not fit.
    """
    import timm

    name, path = settings.teacher.removeprefix("timm:"), Path(settings.weights or "")
    if not timm.is_model(name):
        raise DmaskError(f"timm has no model '{shown(name)}'", "choose one of timm.list_models()")
    try:
        network = timm.create_model(name, pretrained=False, num_classes=classes)
        network.load_state_dict(load_file(path))
        config = network.pretrained_cfg
        teacher = Teacher(network, device, KnownNormalization(config["mean"], config["std"], None), data)
        teacher(torch.zeros(1, 3, resolution, resolution, device=device))
    except (OSError, SafetensorError, RuntimeError, ValueError, AssertionError) as error:
        raise DmaskError(
            f"teacher '{shown(name)}' with weights '{path}' cannot be loaded: {shown(' '.join(str(error).split()))}",
            f"choose a model for images of {resolution} px, and a safetensors file of it with {classes} classes",
        ) from error
    return teacher
