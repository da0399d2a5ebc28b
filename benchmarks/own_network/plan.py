"""`Plan`: what is compared, on how much data, for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from record import without_folders
from search_quality.protocol import Measuring

from dmask_mobile import api
from dmask_mobile.records.base import Record
from dmask_mobile.records.setting_names import Importance, ModelFormat, SearchTeacher
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.train import TrainSettings

ContenderName = Literal["original", "ours", "uniform", "uniform_resolution", "macs", "scratch"]
CONTENDERS: tuple[ContenderName, ...] = ("original", "ours", "uniform", "uniform_resolution", "macs", "scratch")
SCRATCH_LEARNING_RATE = 0.1  # of the shipped recipe for photographs


class Plan(Record):
    """One comparison.

    ``network``, ``weights``: as for ``dmask space from``; ``mean``, ``std``: with which the network was trained, None
    for what the import says. ``data``: any data source. ``resolutions``: those of the space, in pixels; the given
    network gets the largest. ``budget``: a share of its measured latency. ``epochs``: of every fine-tuning;
    ``given_epochs``: of the given network on the classes of the data, before everything else. ``teacher``: whether
    fine-tunings also learn from the scores of the given network. ``int8``: the formats in which ours is compared with
    itself in fp32.
    """

    network: str
    weights: str | None
    data: str
    mean: float | None
    std: PositiveFloat | None
    budget: float = Field(gt=0, lt=1)
    resolutions: tuple[PositiveInt, ...]
    train_images: PositiveInt
    val_images: PositiveInt
    seeds: PositiveInt
    epochs: PositiveInt
    batch_size: PositiveInt
    given_epochs: PositiveInt
    profile_minutes: PositiveFloat
    table: str | None = None
    contenders: tuple[ContenderName, ...] = CONTENDERS
    importance: Importance = "l1"
    teacher: SearchTeacher = "none"
    int8: tuple[ModelFormat, ...] = ()
    measuring: Measuring = Measuring(tolerance=0.025, attempts=5)

    def described(self) -> dict[str, Any]:
        """The plan as JSON, with the names of files and folders instead of their paths."""
        paths = {"weights": self.weights, "table": self.table}
        named = {field: path and Path(path).name for field, path in paths.items()}
        return self.model_dump(mode="json") | named | {"data": without_folders(self.data)}

    def searching(self, space: SearchSpace, seed: int) -> SearchSettings:
        """The default settings of a search from trained weights."""
        return api.default_settings(space).model_copy(update={"batch_size": self.batch_size, "seed": seed})

    def fine_tuning(self, seed: int, epochs: int | None = None) -> TrainSettings:
        """The recipe ``finetune``, the same for every network that starts from weights."""
        settings = {"epochs": epochs or self.epochs, "batch_size": self.batch_size, "seed": seed}
        distillation = None if self.teacher == "none" else {"teacher": self.teacher}
        return TrainSettings.of("finetune", **settings, distillation=distillation, init="supernet")

    def from_scratch(self, seed: int, epochs: int) -> TrainSettings:
        """The same recipe with the learning rate of a training from random weights."""
        settings = {"epochs": epochs, "batch_size": self.batch_size, "seed": seed}
        return TrainSettings.of("finetune", **settings, learning_rate=SCRATCH_LEARNING_RATE, warmup_epochs=1.0)
