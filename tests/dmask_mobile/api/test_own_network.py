"""From a user's own trained network to a smaller one with its weights: space, search, fine-tuning."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import dmask_mobile as dm
from dmask_mobile.api.importing import imported_weights, original_network
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.report.gather import gather_run
from dmask_mobile.run import RunFolder
from dmask_mobile.search.search import start_from
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.dmask_mobile.small import few_images

OURS = """
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation


def net(classes=3):
    blocks = [InvertedResidual(16, 16, 2, 4), InvertedResidual(16, 16, 1, 4)]
    last = [Conv2dNormActivation(16, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes)]
    model = nn.Sequential(Conv2dNormActivation(3, 16, stride=2), *blocks, *last)
    model.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "crop_pct": 0.8}
    return model


def of_five():
    return net(5)
"""
SHORT = dm.SearchSettings(
    epochs=2, warmup=0.5, evaluations=16, evaluation_images=16, trials=0, weight_learning_rate=0.01
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of three classes, and the spaces around two networks."""
    folder = tmp_path_factory.mktemp("own")
    images = few_images(120).train
    for number, (image, label) in enumerate(zip(images.pixels(), (images.labels % 3).tolist(), strict=True)):
        (folder / "photos" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "photos" / str(label) / f"{number}.png")
    (folder / "ours.py").write_text(OURS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.delitem(sys.modules, "ours", raising=False)
        dm.import_space("ours:net", folder / "net.yaml", importance="taylor", data=f"folder:{folder / 'photos'}")
        dm.import_space("ours:of_five", folder / "five.yaml")
    return folder


def test_a_space_with_lower_resolutions_keeps_its_weights(folder: Path) -> None:
    content = yaml.safe_load((folder / "net.yaml").read_text())
    before = imported_weights(folder / "net.yaml", dm.load_space(folder / "net.yaml"))
    content["input"]["resolutions"] = [16, 24]
    (folder / "lower.yaml").write_text(yaml.safe_dump(content))
    lower = dm.load_space(folder / "lower.yaml")
    assert lower.resolution == 24
    weights = imported_weights(folder / "lower.yaml", lower)
    assert all(torch.equal(weights[name], value) for name, value in before.items())


@pytest.fixture(scope="module")
def run(folder: Path) -> dm.Run:
    data = f"folder:{folder / 'photos'}"
    return dm.search(folder / "net.yaml", data, {"macs": dm.Times(0.5)}, folder / "run", settings=SHORT)


def test_a_search_starts_from_the_weights(folder: Path) -> None:
    space = dm.load_space(folder / "net.yaml")
    widest = space.child(space.largest())
    network = ChildNetwork(widest)
    network.load_state_dict(imported_weights(folder / "net.yaml", space))
    for classes in (3, 4):
        supernet = MaskedSupernet(space.with_classes(classes))
        start_from(supernet, network.state_dict())
        same = {
            name: torch.equal(value, network.state_dict()[name])
            for name, value in supernet.state_dict().items()
            if value.shape == network.state_dict()[name].shape
        }
        assert all(same.values())
        assert len(same) == len(network.state_dict()) - 2 * (classes != 3)


def test_half_of_what_the_network_takes(run: dm.Run, folder: Path) -> None:
    space = dm.load_space(folder / "net.yaml")
    macs = dm.cost_model("macs")
    whole = macs.estimate(space.child(space.largest())).value
    (budget,) = run.budgets
    assert budget.limit == 0.5 * whole
    assert macs.estimate(run.child).value <= 0.5 * whole
    preprocessing = RunFolder(folder / "run").record().preprocessing
    assert preprocessing.mean == (0.4, 0.5, 0.6)
    assert (preprocessing.source_resolution, preprocessing.resize_resolution) == (32, 40)  # 32 px are 80% of 40 px
    assert space.input.crop == 0.8


def test_the_report_tells_how_the_run_came_from_a_network(run: dm.Run) -> None:
    made, searched = (command.line for command in gather_run(RunFolder(run.path), ()).commands[:2])
    assert made == "dmask space from ours:net --weights WEIGHTS -o net.yaml"
    assert searched.startswith("dmask search net.yaml --data ")
    changed = "--method single_path --epochs 2 --weight-learning-rate 0.01 --evaluations 16 --teacher none"
    assert searched.endswith(f" {changed} -o {run.path}")


@pytest.mark.parametrize("name", ["net", "five"])
def test_by_default_a_search_measures_the_given_network(name: str, folder: Path) -> None:
    """Also one of other classes than those of the data; it trains nothing."""
    data, path = f"folder:{folder / 'photos'}", folder / f"measured-{name}"
    run = dm.search(folder / f"{name}.yaml", data, {"macs": dm.Times(0.5)}, path)
    assert run.search_result.costs[0] <= run.budgets[0].limit
    searched = gather_run(RunFolder(path), ()).commands[1].line
    assert searched == f"dmask search {name}.yaml --data {data} --budget macs={run.budgets[0].limit!r} -o {path}"
    settings = dm.TrainSettings.of("finetune", {}, epochs=1, batch_size=32, init="supernet", seed=0)
    assert dm.train(run, settings=settings) == run.accuracy


def test_an_untrained_classifier_cannot_rank(folder: Path) -> None:
    data, budget = f"folder:{folder / 'photos'}", {"macs": dm.Times(0.5)}
    with pytest.raises(dm.DmaskError, match=r"the data has 3 classes and the given network 5, .* cannot be ranked"):
        dm.search(folder / "five.yaml", data, budget, folder / "unranked", samples=2)
    assert not (folder / "unranked").exists()


def test_the_child_is_fine_tuned_from_its_part_of_the_weights(run: dm.Run) -> None:
    settings = dm.TrainSettings.of("finetune", {}, epochs=1, batch_size=32, init="supernet", seed=0)
    assert dm.train(run, settings=settings) == run.accuracy
    assert run.network() is not None


def test_the_original_teaches_the_child(run: dm.Run, folder: Path) -> None:
    original = original_network(RunFolder(run.path))
    given = imported_weights(folder / "net.yaml", dm.load_space(folder / "net.yaml"))
    assert all(torch.equal(value, given[name]) for name, value in original.state_dict().items())
    taught = dm.TrainSettings.of("finetune", {"distillation": {"teacher": "original"}}, epochs=1, init="supernet")
    assert dm.train(run, settings=taught.model_copy(update={"batch_size": 32}), restart=True) == run.accuracy


def test_a_search_that_ranks_by_int8_says_so(folder: Path) -> None:
    data, path = f"folder:{folder / 'photos'}", folder / "int8"
    budget, short = {"macs": dm.Times(0.5)}, SHORT.model_copy(update={"epochs": 1, "warmup": 0.0})
    run = dm.search(folder / "net.yaml", data, budget, path, settings=short, samples=2, rank_precision="int8")
    result = run.search_result
    assert (result.rank_precision, result.rank_format) == ("int8", "onnx")
    accuracies = result.exported_accuracies
    assert len(accuracies) == 2
    assert accuracies == tuple(sorted(accuracies, reverse=True))
    assert result.candidates[0].choice == result.choice
    (step, *_) = dm.status(run).steps
    assert "--samples 2 --rank-precision int8:onnx" in step.command


def test_training_for_int8_is_recorded(run: dm.Run, folder: Path) -> None:
    settings = dm.TrainSettings.of("finetune", {}, epochs=1, batch_size=32, init="supernet", seed=0, qat="onnx")
    assert dm.train(run, settings=settings, restart=True) == run.accuracy
    (artifact,) = dm.export(run, "onnx", "int8")
    assert artifact.precision == "int8"
    assert RunFolder(folder / "run").record().train_settings["qat"] == "onnx"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coreml", r"--qat imitates int8 activations, but int8 of format coreml quantizes only weights; train without"),
        ("ncnn", r"format ncnn has no int8: .*; choose another precision or format"),
    ],
)
def test_formats_without_int8_activations(name: str, message: str, run: dm.Run) -> None:
    with pytest.raises(dm.DmaskError, match=message):
        dm.train(run, data="no such data", settings=dm.TrainSettings.model_validate({"qat": name}))


def test_other_classes_get_a_new_classifier(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    short = SHORT.model_copy(update={"epochs": 1, "warmup": 0.0, "teacher": "original"})
    data = f"folder:{folder / 'photos'}"
    found = dm.search(folder / "five.yaml", data, {"macs": dm.Times(0.7)}, folder / "five", settings=short, samples=1)
    assert "the data has 3 classes, the given network 5: it gets a new classifier, and is no teacher" in caplog.text
    assert found.record.search_settings is not None
    assert found.record.search_settings["teacher"] == "none"
    taught = dm.TrainSettings.of("finetune", {"distillation": {"teacher": "original"}}, epochs=1)
    with pytest.raises(dm.DmaskError, match="did not start from a trained network for the classes of its data"):
        dm.train(found, settings=taught)
    assert found.child.classes == 3


def test_the_command_line_takes_shares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", str(folder / "net.yaml"), "--data", f"folder:{folder / 'photos'}", "-o", str(folder / "cli")]
    assert exit_status_of_command([*words, "--budget", "macs=1.2x"]) == 2
    assert "budget macs=1.2x is more than the widest network" in " ".join(capsys.readouterr().err.split())
    assert exit_status_of_command([*words, "--budget", "macs=0.5x", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": {"file": "gone.safetensors", "sha256": "0" * 64}},
            r"no file '.*gone\.safetensors', which contains",
        ),
        (
            {"weights": {"file": "net.safetensors", "sha256": "0" * 64}},
            r"net\.safetensors' does not have the checksum in '.*edited\.yaml'",
        ),
        ({"stem": {"widths": [8], "activation": "relu"}}, r"belong to child .*keep the last option of every list"),
    ],
)
def test_weights_that_are_not_those_of_the_space(change: dict[str, object], message: str, folder: Path) -> None:
    content = yaml.safe_load((folder / "net.yaml").read_text()) | change
    (folder / "edited.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(dm.DmaskError, match=message):
        dm.search(folder / "edited.yaml", f"folder:{folder / 'photos'}", {"macs": 1e5}, folder / "none")


def test_a_space_object_does_not_say_where_its_weights_lie(folder: Path) -> None:
    with pytest.raises(dm.DmaskError, match="the weights of 'net' are beside its file"):
        dm.search(dm.load_space(folder / "net.yaml"), "glyphs", {"macs": 1e5}, folder / "none")


@pytest.mark.slow
def test_a_sweep_starts_from_the_weights(folder: Path) -> None:
    """Five classes in the weights, three in the data: the runs get new classifiers and are fine-tuned."""
    data, place = f"folder:{folder / 'photos'}", folder / "sweep"
    budgets = {"macs": (dm.Times(0.5), dm.Times(0.7))}
    record = dm.sweep(folder / "five.yaml", data, budgets, place, train_options={"epochs": 1, "batch_size": 16})
    assert record.failed == ()
    widest = dm.cost_model("macs").on(dm.load_space(folder / "five.yaml").with_classes(3))
    limits = [share * widest.cost(widest.space.largest()) for share in (0.5, 0.7)]
    assert [point.budgets["macs"] for point in record.points] == pytest.approx(limits, rel=1e-5)
    assert (place / "five.safetensors").read_bytes() == (folder / "five.safetensors").read_bytes()
    for point in record.points:
        run = RunFolder(place / point.run).record()
        assert run.search_settings["method"] == "sensitivity"
        assert run.train_settings["init"] == "supernet"
        assert run.train_settings["learning_rate"] == 0.02  # the recipe finetune's
        assert point.costs["macs"] <= point.budgets["macs"]
    (folder / "moved").mkdir()
    (folder / "moved" / "five.yaml").write_bytes((folder / "five.yaml").read_bytes())
    with pytest.raises(dm.DmaskError, match=r"no file '.*five\.safetensors', which contains the weights"):
        dm.sweep(folder / "moved" / "five.yaml", data, budgets, folder / "other")
    assert not (folder / "other").exists()
