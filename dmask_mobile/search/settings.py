"""`SearchSettings`: all settings of a search besides space, data and budgets."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dmask_mobile.records.base import Record
from dmask_mobile.records.recipe import BatchSize, Epochs
from dmask_mobile.records.setting_names import Expectation, LossName, ResolutionMode, SearchMethod, SearchTeacher
from dmask_mobile.search.losses import ControlSettings, FixedSettings
from dmask_mobile.search.schedule import Schedule
from dmask_mobile.training.train import Seed


class SearchSettings(Record):
    """Length and learning rates of a search; the schedules stretch with ``epochs``.

    ``method``: ``single_path`` trains one child a step, with a cost near the budgets. Its gates learn from
    ``evaluations`` evaluated children, each on ``evaluation_images`` images (`search.single_path`), and from ``trials``
    children that are trained by themselves for ``trial_epochs`` each (`search.trials`; None: a quarter of ``epochs``).
    ``dmasking`` is the method of FBNetV2, with soft gates in every step. ``sensitivity`` trains nothing: it
    measures in ``epochs`` rounds what each option changes in the scores of a given network (`search.sensitivity`).
    Only ``dmasking`` offers other losses than ``budget`` and a ``resolution_mode``: ``sampled`` runs one resolution
    a step, ``exact`` runs all of them (FBNetV2, section 3.1). ``gate_learning_rate``, ``min_gate_steps``,
    ``control`` and the temperatures also apply only to ``dmasking``. ``expectation``: how multiply-adds and
    parameters enter the loss of the gates: as the exact expected cost, or by the paper's effective shapes (section
    3.3). Derivation is exact in both cases. ``teacher``: the weight steps also learn from the scores of the given
    network (``original``), whose trained weights the search starts from.
    """

    method: SearchMethod = "single_path"
    epochs: Epochs = 8
    warmup: float = Field(default=0.75, ge=0, lt=1, description="share of the epochs before the gates learn")
    gate_share: float = Field(default=0.2, gt=0, lt=1, description="share of the images that the gates learn from")
    batch_size: BatchSize = 64
    weight_learning_rate: PositiveFloat = 0.1
    weight_decay: float = Field(default=4e-5, ge=0)
    gate_learning_rate: PositiveFloat = 0.05
    min_gate_steps: PositiveInt = Field(
        default=400, le=10_000_000, description="the minimum number of gate steps in the whole search"
    )
    evaluations: int = Field(
        default=100, ge=1, le=1_000_000, description="children whose loss in the supernet the gates learn from"
    )
    evaluation_images: BatchSize = 256
    trials: int = Field(default=8, ge=0, le=10_000, description="children that are trained shortly by themselves")
    trial_epochs: Epochs | None = None
    resolution_mode: ResolutionMode = "sampled"
    expectation: Expectation = "exact"
    schedule: Schedule = Schedule()
    teacher: SearchTeacher = "none"
    loss: LossName = "budget"
    control: ControlSettings = ControlSettings()
    fixed: FixedSettings = FixedSettings()
    seed: Seed = 0

    @property
    def warmup_epochs(self) -> int:
        """The number of epochs before the gates learn."""
        return math.floor(self.warmup * self.epochs)

    @property
    def epochs_of_a_trial(self) -> int:
        """The number of epochs of a trial."""
        return self.trial_epochs or max(1, round(self.epochs / 4))

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method != "dmasking" and (self.loss != "budget" or self.resolution_mode != "sampled"):
            raise ValueError(
                f"the method '{self.method}' allows only the loss 'budget' and one resolution a step, got the loss"
                f" '{self.loss}' and the resolution mode '{self.resolution_mode}': choose --method dmasking for these"
            )
        return self
