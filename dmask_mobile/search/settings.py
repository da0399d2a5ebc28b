"""`SearchSettings`: everything that a search can be told besides space, data and budgets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dmask_mobile.records.base import Record
from dmask_mobile.search.losses import ControlSettings, FixedSettings, LossName
from dmask_mobile.search.schedule import Schedule

ResolutionMode = Literal["sampled", "exact"]
Expectation = Literal["exact", "effective_shapes"]


class SearchSettings(Record):
    """Length and rates of a search; the schedules stretch with ``epochs``.

    ``resolution_mode``: ``sampled`` runs one resolution a step, ``exact`` all of them in every step (FBNetV2, section
    3.1). A space with one resolution knows no difference. ``expectation``: how the gates see multiply-adds and
    parameters, as the exact expected cost or by the paper's effective shapes (section 3.3); derivation is exact in any
    case.
    """

    epochs: PositiveInt = 30
    warmup: float = Field(default=0.25, ge=0, lt=1, description="share of the epochs before the gates learn")
    gate_share: float = Field(default=0.2, gt=0, lt=1, description="share of the images that the gates learn from")
    batch_size: PositiveInt = 128
    weight_learning_rate: PositiveFloat = 0.1
    weight_decay: float = 4e-5
    gate_learning_rate: PositiveFloat = 0.05
    min_gate_steps: PositiveInt = Field(default=400, description="at least so many gate steps in the whole search")
    resolution_mode: ResolutionMode = "sampled"
    expectation: Expectation = "exact"
    schedule: Schedule = Schedule()
    loss: LossName = "budget"
    control: ControlSettings = ControlSettings()
    fixed: FixedSettings = FixedSettings()
    seed: int = 0
