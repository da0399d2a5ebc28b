from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from search_quality.bench import Bench, Network
from search_quality.images import read_images
from search_quality.protocol import TINY

from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.evaluation import evaluate

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "search_quality"


@pytest.mark.slow
def test_every_step_once(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--form", "tiny", "--data", "glyphs=glyphs", "--processes", "1"]
    command += ["--work", str(tmp_path), "--results", str(tmp_path), "--name", "short", "--open-test"]
    done = subprocess.run([*command, "--search", "min_gate_steps=2"], capture_output=True, text=True, check=True)
    assert "glyphs, search 'short', test images" in done.stdout
    content = json.loads((tmp_path / "search_quality_tiny.json").read_text())
    found = content["variants"]["short"]["settings"]["glyphs"]
    networks = {network["key"]: network for network in found["networks"]}
    ways = {"uniform-widths", "uniform-depth", "uniform-resolution"}
    assert {*networks} == ways | {"capacity"} | {
        f"{who}-{n}" for who in ("random", "searched", "ungated", "evolved") for n in (0, 1)
    }
    assert found["evaluations"]["ungated"] == 3
    for network in networks.values():
        assert all(0 <= training["test"] <= 1 for training in network["trainings"])
    pictures = tmp_path / "search_quality_tiny"
    assert {path.name for path in pictures.iterdir()} == {"glyphs_short.png", "glyphs_short.svg"}
    _check_that_weights_were_kept(tmp_path, networks["random-0"], found["images"])
    again = [*command, "--search", "min_gate_steps=2", "--contenders", "evolved", "--json"]
    printed = json.loads(subprocess.run(again, capture_output=True, text=True, check=True).stdout)
    fewer = printed["variants"]["short"]["settings"]["glyphs"]["networks"]
    assert {each["key"] for each in fewer} == {
        f"{who}-{n}" for who in ("random", "searched", "evolved") for n in (0, 1)
    }


def _check_that_weights_were_kept(work: Path, network: dict, images: dict) -> None:  # type: ignore[type-arg]
    """The weights that the test split was opened for are those that were judged on the validation images."""
    (path,) = work.glob("jobs/images-*/images.pt")
    data = read_images(str(path))
    assert {"train": 200, "val": 100}.items() <= images.items()
    bench = Bench(work, TINY, TINY.settings[0], {"classes": 36}, "", SearchSettings())
    module = bench.module(Network.model_validate(network["network"]), 0)
    kept = []
    for weights in work.glob("jobs/train-*/weights.pt"):
        content = torch.load(weights, weights_only=True)
        if content.keys() == module.state_dict().keys() and all(
            value.shape == module.state_dict()[name].shape for name, value in content.items()
        ):
            module.load_state_dict(content)
            kept.append(evaluate(module, data.val, data.at(network["resolution"])))
    assert network["trainings"][0]["val"] in kept
