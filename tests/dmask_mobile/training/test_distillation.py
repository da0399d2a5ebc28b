from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from dmask_mobile.data.images import KnownNormalization
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.recipe import Distillation
from dmask_mobile.training.distillation import Teacher, distillation_loss, timm_teacher

CPU = torch.device("cpu")
MODEL = "test_efficientnet"
DATA = KnownNormalization((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), None)


def test_the_loss_is_hintons() -> None:
    scores, taught, t = torch.randn(5, 7), torch.randn(5, 7), 3.0
    p, q = torch.softmax(taught / t, 1), torch.softmax(scores / t, 1)
    expected = t**2 * (p * (p / q).log()).sum()
    assert float(distillation_loss(scores, taught, t)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distillation_loss(taught, taught, t)) == pytest.approx(0, abs=1e-5)


def test_a_model_of_timm_sees_images_in_its_own_normalization(tmp_path: Path) -> None:
    model = timm.create_model(MODEL, num_classes=5).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    settings = Distillation(teacher=f"timm:{MODEL}", weights=str(tmp_path / "w.safetensors"))
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (DATA.mean, DATA.std))
    own = [torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std")]
    taught = timm_teacher(settings, 5, DATA, 32, CPU)((pixels - mean) / std)
    with torch.no_grad():
        expected = model((pixels - own[0]) / own[1])
    torch.testing.assert_close(taught, expected, rtol=1e-4, atol=1e-5)
    assert not taught.requires_grad


def test_teachers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="timm has no model 'no_such_net'"):
        timm_teacher(Distillation(teacher="timm:no_such_net", weights="w"), 5, DATA, 32, CPU)
    missing = Distillation(teacher=f"timm:{MODEL}", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(DmaskError, match=r"weights '.*w\.safetensors' cannot be loaded: .* with 5 classes"):
        timm_teacher(missing, 5, DATA, 32, CPU)
    save_file(timm.create_model(MODEL, num_classes=7).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DmaskError, match=r"cannot be loaded: .*size mismatch"):
        timm_teacher(missing, 5, DATA, 32, CPU)


def test_a_model_for_other_images_is_refused_before_training(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    save_file(timm.create_model(name, num_classes=5).state_dict(), tmp_path / "w.safetensors")
    settings = Distillation(teacher=f"timm:{name}", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(DmaskError, match=r"cannot be loaded: .*224.* choose a model for images of 48 px"):
        timm_teacher(settings, 5, DATA, 48, CPU)


def test_a_teacher_does_not_learn() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(12, 4))
    before = network[0].running_mean.clone()
    scores = Teacher(network, CPU)(torch.randn(8, 3, 2, 2))
    assert torch.equal(network[0].running_mean, before)
    assert not scores.requires_grad
