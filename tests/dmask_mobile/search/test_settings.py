"""Settings of searches and trainings: invalid ones are refused in one line before anything is read."""

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


@pytest.mark.parametrize(("warmup", "epochs", "learning"), [(0.75, 1, 1), (0.75, 4, 1), (0.75, 24, 6), (0.99, 2, 1)])
def test_the_gates_learn_in_a_search_of_any_length(warmup: float, epochs: int, learning: int) -> None:
    settings = SearchSettings(epochs=epochs, warmup=warmup)
    assert epochs - settings.warmup_epochs == learning


@pytest.mark.parametrize("other", [{"loss": "fbnet"}, {"loss": "linear"}, {"resolution_mode": "exact"}])
def test_what_only_soft_gates_offer_is_refused_with_single_paths(other: dict[str, str]) -> None:
    SearchSettings.model_validate({"method": "dmasking", **other})
    with pytest.raises(
        ValidationError, match=r"'single_path' allows only the loss 'budget' .* choose --method dmasking"
    ):
        SearchSettings.model_validate(other)


def test_the_largest_seed_works(tmp_path: Any) -> None:
    """Seeds of batches are computed from the seed by multiplication."""
    data, child = few_images(64), SPACE.child(SPACE.smallest())
    settings = TrainSettings(epochs=1, batch_size=32, seed=2**63 - 1)
    assert 0 <= train_child(build(child), data, settings, tmp_path / "t.pt").accuracy <= 1


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_weights_and_gates_need_images(share: float) -> None:
    budget = Budget(MACS, sum(MACS.reachable()) / 2)
    with pytest.raises(
        DmaskError,
        match=r"with 12 training images and a share of 0\.\d+ for the gates there would be (12 and 0|0 and 12)",
    ):
        Searcher(SPACE, few_images(12), [budget], SearchSettings(gate_share=share))
