from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipes import CHANGES, compared, main

from dmask_mobile.training.train import TrainSettings

TINY = [
    "--data",
    "glyphs",
    "--space",
    "demo",
    "--resolution",
    "16",
    "--macs",
    "200000",
    "--epochs",
    "1",
    "--name",
    "tiny",
]
TINY += ["--train-images", "300", "--val-images", "100", "--only", "no mirroring", "--only", "learning rate 0.1"]


@pytest.mark.slow
def test_every_step_once(tmp_path: Path) -> None:
    given = [*TINY, "--work", str(tmp_path / "work"), "--results", str(tmp_path)]
    main([*given, "--open-test"])
    result = json.loads((tmp_path / "recipes_tiny.json").read_text())
    assert list(result["changes"]) == ["default", "no mirroring", "learning rate 0.1"]
    assert result["changes"]["default"]["minus_default"] == 0
    unchanged = result["changes"]["no mirroring"]["trainings"]  # characters are never mirrored
    default = result["changes"]["default"]["trainings"]
    assert [each["val"] for each in unchanged] == [each["val"] for each in default]
    assert result["changes"]["learning rate 0.1"]["trainings"] != default
    assert len(result["test"]) == 2
    assert result["child"]["macs"] <= 200_000
    main(given)  # nothing is trained again
    again = json.loads((tmp_path / "recipes_tiny.json").read_text())
    assert again["changes"] == result["changes"]


def test_every_change_is_one_of_the_recipe() -> None:
    for name, change in CHANGES.items():
        changed = TrainSettings.of("small", change)
        assert (changed == TrainSettings.of("small")) == (name == "default"), name


def test_differences_are_of_pairs() -> None:
    found = compared({"default": [{"val": 0.5}, {"val": 0.7}], "other": [{"val": 0.6}, {"val": 0.9}]})
    assert found["other"]["minus_default"] == pytest.approx(0.15)
    assert found["other"]["standard_error"] == pytest.approx(0.05)  # of 0.1 and 0.2: half of their distance
