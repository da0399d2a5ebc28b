"""Settings of searches and trainings: what cannot work is refused before anything is read, in one line."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.search.schedule import Schedule
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.train import TrainSettings, train_child
from tests.dmask_mobile.search.test_budgets import MACS, Budget
from tests.dmask_mobile.small import SPACE, few_images


@pytest.mark.parametrize("settings", [SearchSettings, TrainSettings])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**63),
        ("epochs", 0),
        ("epochs", -3),
        ("epochs", 10**12),
        ("batch_size", 0),
        ("batch_size", 2**70),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
    ],
)
def test_values_out_of_range_are_refused_by_name(settings: type[BaseModel], field: str, value: float) -> None:
    with pytest.raises(ValidationError) as error:
        settings.model_validate({field: value})
    text = describe_validation_error(error.value)
    assert text.startswith(f"{field}: ")
    assert f"got {value!r}" in text


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (TrainSettings, "learning_rate"),
        (SearchSettings, "weight_learning_rate"),
        (SearchSettings, "gate_learning_rate"),
        (Schedule, "last_temperature"),
    ],
)
def test_rates_are_positive_and_finite(settings: type[BaseModel], field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        settings.model_validate({field: value})


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.6), (2, 0.9), (2, 0.75), (30, 0.99)])
def test_a_warm_up_of_all_epochs_is_refused(epochs: int, warmup: float) -> None:
    assert round(warmup * epochs) == epochs
    with pytest.raises(
        ValidationError,
        match=rf"a warm-up of {warmup} of {epochs} epochs is all of them, .* --epochs or a shorter --warmup",
    ):
        SearchSettings(epochs=epochs, warmup=warmup)


@pytest.mark.parametrize(("epochs", "learning"), [(1, 1), (2, 2), (3, 2), (4, 3), (30, 22)])
def test_the_gates_learn_in_a_search_of_any_length(epochs: int, learning: int) -> None:
    """The default warm-up is a quarter; Python rounds halves to the even number."""
    assert epochs - SearchSettings(epochs=epochs).warmup_epochs == learning


def test_the_largest_seed_works(tmp_path: Any) -> None:
    """Seeds of batches are made from it by multiplication."""
    data, child = few_images(64), SPACE.child(SPACE.smallest())
    settings = TrainSettings(epochs=1, batch_size=32, seed=2**63 - 1)
    assert 0 <= train_child(build(child), data, settings, tmp_path / "t.pt").accuracy <= 1


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_weights_and_gates_need_images(share: float) -> None:
    budget = Budget(MACS, sum(MACS.reachable()) / 2)
    with pytest.raises(
        DmaskError, match=r"of 12 training images a share of 0\.\d+ for the gates leaves (12 and 0|0 and 12)"
    ):
        Searcher(SPACE, few_images(12), [budget], SearchSettings(gate_share=share))
