"""``dmask space from``: files, messages, what a person may edit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml

import dmask_mobile as dm
from dmask_mobile.cli.outcome import exit_status_of_command
from tests.dmask_mobile.importing.models import random_model

SOURCE = "timm:tf_mobilenetv3_small_minimal_100"


def test_a_space_and_its_weights_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(random_model(SOURCE).state_dict(), tmp_path / "w.pth")
    arguments = ["space", "from", SOURCE, "--weights", str(tmp_path / "w.pth"), "-o", str(tmp_path / "v3.yaml")]
    assert exit_status_of_command(arguments) == 0, capsys.readouterr()
    shown = " ".join(capsys.readouterr().out.split())
    assert "of their range" in shown
    assert "channels ordered by l1" in shown
    space = dm.load_space(tmp_path / "v3.yaml")
    assert space.origin == SOURCE
    assert (space.padding, space.norm_eps, space.written_version) == ("same", 1e-3, 2)
    assert space.weights is not None
    assert (tmp_path / space.weights.file).exists()
    assert exit_status_of_command(arguments) == 2
    assert "v3.yaml' exists" in capsys.readouterr().err


def test_without_weights_it_is_the_space_around_an_architecture(tmp_path: Path) -> None:
    imported = dm.import_space(SOURCE, tmp_path / "v3.yaml", weights="none")
    assert imported.weights is None
    assert imported.space.weights is None
    edited = yaml.safe_load((tmp_path / "v3.yaml").read_text())
    edited["input"]["resolutions"] = [128]
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(edited))
    assert dm.load_space(tmp_path / "edited.yaml").input.resolutions == (128,)


def test_weights_of_other_classes_give_a_model_of_these(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import timm

    torch.save(timm.create_model(SOURCE[5:], num_classes=7).state_dict(), tmp_path / "w.pth")
    assert dm.import_space(SOURCE, tmp_path / "v3.yaml", weights=tmp_path / "w.pth").space.classes == 7
    assert "the weights are for 7 classes" in caplog.text


def test_a_function_gives_a_model_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours.py").write_text(
        "import timm\n\n"
        "def net():\n    return timm.create_model('tf_mobilenetv3_small_minimal_100', num_classes=4)\n\n"
        "def broken():\n    raise OSError('no route to host')\n\n"
        "def leaving():\n    raise SystemExit(0)\n\n"
        "def interrupted():\n    raise KeyboardInterrupt\n\n"
        "def failing():\n    model = net()\n    model.forward = lambda images: images.pixels\n    return model\n\n"
        "def described():\n    model = net()\n    model.pretrained_cfg = 'none'\n    return model\n\n"
        "def diverged():\n    model = net()\n    model.conv_stem.weight.data[:] = float('nan')\n    return model\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    assert dm.import_space("ours:net", "net.yaml").weights == Path("net.safetensors")
    with pytest.raises(dm.DmaskError, match=r"model 'ours:broken': making it raised OSError: no route to host"):
        dm.import_space("ours:broken", "broken.yaml")
    with pytest.raises(dm.DmaskError, match=r"model 'ours:leaving': making it raised SystemExit: 0"):
        dm.import_space("ours:leaving", "broken.yaml")
    with pytest.raises(dm.DmaskError, match=r"its outputs on a batch of 2 images raised AttributeError: .*pixels"):
        dm.import_space("ours:failing", "broken.yaml")
    with pytest.raises(dm.DmaskError, match=r"model 'ours:described': its pretrained_cfg raised AttributeError: "):
        dm.import_space("ours:described", "broken.yaml")
    with pytest.raises(KeyboardInterrupt):
        dm.import_space("ours:interrupted", "broken.yaml")
    with pytest.raises(
        dm.DmaskError, match=r"'ours:diverged': the tensor 'conv_stem\.weight' contains NaN or infinity"
    ):
        dm.import_space("ours:diverged", "broken.yaml")
    with pytest.raises(dm.DmaskError, match=r"'os:getcwd' returned str, not a torch.nn.Module"):
        dm.import_space("os:getcwd", "broken.yaml")


def test_an_import_that_was_killed_before_its_last_file_can_be_repeated(tmp_path: Path) -> None:
    torch.save(random_model(SOURCE).state_dict(), tmp_path / "w.pth")
    path = tmp_path / "v3.yaml"
    dm.import_space(SOURCE, path, weights=tmp_path / "w.pth")
    before = path.read_text()
    path.unlink()
    dm.import_space(SOURCE, path, weights=tmp_path / "w.pth")
    assert path.read_text() == before
    path.unlink()
    with pytest.raises(dm.DmaskError, match=r"v3\.safetensors' exists and contains other weights; choose another file"):
        dm.import_space(SOURCE, path, weights=tmp_path / "w.pth", importance="bn")
    (tmp_path / "v3.safetensors").write_bytes(b"mine")
    with pytest.raises(dm.DmaskError, match=r"v3\.safetensors' exists; choose another file"):
        dm.import_space(SOURCE, path, weights=tmp_path / "absent.pth")
    assert (tmp_path / "v3.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("nothing", {}, "no model 'nothing'"),
        ("timm:nothing", {"weights": "none"}, "timm has no model 'nothing'"),
        ("torchvision:nothing", {"weights": "none"}, "torchvision has no model 'nothing'"),
        (SOURCE, {}, "would have to be downloaded"),
        (SOURCE, {"importance": "taylor"}, "'taylor' is measured on images"),
        (SOURCE, {"weights": "absent.pth"}, "no file 'absent.pth'"),
    ],
)
def test_bad_input_is_refused(source: str, arguments: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(dm.DmaskError, match=message):
        dm.import_space(source, tmp_path / "x.yaml", **arguments)
    assert not list(tmp_path.iterdir())
