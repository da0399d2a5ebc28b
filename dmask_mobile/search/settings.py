"""`SearchSettings`: everything that a search can be told besides space, data and budgets."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dmask_mobile.records.base import Record
from dmask_mobile.records.recipe import BatchSize, Epochs
from dmask_mobile.records.setting_names import Expectation, LossName, ResolutionMode
from dmask_mobile.search.losses import ControlSettings, FixedSettings
from dmask_mobile.search.schedule import Schedule
from dmask_mobile.training.train import Seed


class SearchSettings(Record):
    """Length and rates of a search; the schedules stretch with ``epochs``.

    ``resolution_mode``: ``sampled`` runs one resolution a step, ``exact`` all of them in every step (FBNetV2, section
    3.1). A space with one resolution knows no difference. ``expectation``: how the gates see multiply-adds and
    parameters, as the exact expected cost or by the paper's effective shapes (section 3.3); derivation is exact in any
    case.
    """

    epochs: Epochs = 30
    warmup: float = Field(default=0.25, ge=0, lt=1, description="share of the epochs before the gates learn")
    gate_share: float = Field(default=0.2, gt=0, lt=1, description="share of the images that the gates learn from")
    batch_size: BatchSize = 128
    weight_learning_rate: PositiveFloat = 0.1
    weight_decay: float = Field(default=4e-5, ge=0)
    gate_learning_rate: PositiveFloat = 0.05
    min_gate_steps: PositiveInt = Field(
        default=400, le=10_000_000, description="at least so many gate steps in the whole search"
    )
    resolution_mode: ResolutionMode = "sampled"
    expectation: Expectation = "exact"
    schedule: Schedule = Schedule()
    loss: LossName = "budget"
    control: ControlSettings = ControlSettings()
    fixed: FixedSettings = FixedSettings()
    seed: Seed = 0

    @property
    def warmup_epochs(self) -> int:
        """The epochs before the gates learn."""
        return round(self.warmup * self.epochs)

    @model_validator(mode="after")
    def _gates_learn(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"a warm-up of {self.warmup:g} of {self.epochs} epochs is all of them, and the gates would never learn:"
                " give more --epochs or a shorter --warmup"
            )
        return self
