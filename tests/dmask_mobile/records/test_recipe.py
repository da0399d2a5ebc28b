from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from dmask_mobile.cli.recipes import parse_changes
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.recipe import RECIPES, load_recipe
from dmask_mobile.training.train import TrainSettings


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_that_ship_say_where_they_come_from(name: str) -> None:
    assert load_recipe(name).notes


def test_small_is_the_default() -> None:
    assert TrainSettings.of("small") == TrainSettings()


def test_any_field_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("format: dmask-recipe\nversion: 1\nepochs: 7\naugmentation: {crop: [0.5, 1.0]}\n")
    changes = parse_changes(["augmentation.mixup=0.2", "ema_decay=null", "distillation.teacher=supernet"])
    settings = TrainSettings.of(str(path), changes, batch_size=9, seed=3)
    assert (settings.epochs, settings.batch_size, settings.seed, settings.ema_decay) == (7, 9, 3, None)
    assert settings.augmentation.crop == (0.5, 1.0)
    assert settings.augmentation.mixup == 0.2
    assert settings.distillation is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochz: 3", r"unknown key 'epochz'"),
        ("augmentation: {mixup: 0.1, mixdown: 1}", r"unknown key 'augmentation\.mixdown'"),
        ("epochs: 0", r"epochs: Input should be greater than or equal to 1, got 0"),
        ("optimizer: adam9000", r"optimizer: Input should be 'sgd', 'adamw' or 'rmsproptf', got 'adam9000'"),
        ("augmentation: {crop: [0.9, 0.1]}", r"crop must be two shares of the area, the smaller first"),
        ("distillation: {teacher: 'timm:resnet18'}", r"a teacher from timm needs weights"),
        ("distillation: {teacher: 'module:thing'}", r"distillation\.teacher: String should match pattern"),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_refused_by_the_field(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"format: dmask-recipe\nversion: 1\n{text}\n")
    with pytest.raises(DmaskError, match=rf"'.*mine\.yaml': .*{message}"):
        load_recipe(str(path))


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"no recipe 'huge'; give one of small, .*, finetune, or a YAML file"):
        load_recipe("huge")
    with pytest.raises(DmaskError, match=r"no file '.*gone\.yaml'"):
        load_recipe(str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize("text", ["epochs", "=3", "epochs={a: b: c}", "epochs=!!timestamp abc", "epochs=!!int ''"])
def test_changes_that_are_none(text: str) -> None:
    with pytest.raises(DmaskError, match="--set"):
        parse_changes([text])


def test_a_change_of_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="mixdown"):
        TrainSettings.of("small", parse_changes(["augmentation.mixdown=1"]))
    with pytest.raises(DmaskError, match=r"recipe: 'epochs' has no fields, got 'epochs\.more'"):
        TrainSettings.of("small", parse_changes(["epochs.more=1"]))
    with pytest.raises(DmaskError, match=r"recipe: unknown field 'seed'; it has accumulate, "):
        TrainSettings.of("small", parse_changes(["seed=3"]))
    with pytest.raises(DmaskError, match=r"recipe: 'epochs' is given twice"):
        TrainSettings.of("small", parse_changes(["epochs=3"]), epochs=5)
    with pytest.raises(ValidationError, match="augmentation"):
        TrainSettings.of("small", parse_changes(["augmentation=3"]))


def test_what_a_run_keeps_is_yaml() -> None:
    """The resolved recipe can be written as a recipe and read again."""
    kept = TrainSettings.of("photographs").model_dump(mode="json", exclude={"init", "seed"})
    assert yaml.safe_load(yaml.safe_dump(kept)) == kept
