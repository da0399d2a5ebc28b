"""The records of a sweep: `SweepDesign` (its plan) and `SweepRecord` (its results)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from dmask_mobile.errors import shown
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.space import SearchSpace

Values = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
Accuracy = Annotated[float, Field(ge=0, le=1)]
Options = dict[str, str | bool]
"""Options of a command by their names without dashes; True and False stand for ``--NAME`` and ``--no-NAME``."""


class SweepDesign(FileRecord):
    """``design.json``: the plan of a sweep. Every combination of its budgets is searched and trained with every seed.

    ``budgets``: the limits of each cost, in ms, macs, params or bytes. ``data_digest``: a digest of the content of
    ``data``. ``tables``: the SHA-256 of each latency table by name. ``cost``: ``module:Class`` of a custom cost.
    ``flip`` and ``skip_bad``: how data is read, as in `DataOptions`. The other options are those of ``dmask search``
    and ``dmask train``.
    """

    file_format: ClassVar[str] = "dmask-sweep-design"

    space: SearchSpace
    data: str
    data_digest: str
    budgets: dict[str, Values] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    tables: dict[str, str] = Field(default_factory=dict)
    cost: str | None = None
    precision: Precision | None = None
    flip: bool | None = None
    skip_bad: bool = False
    search_options: Options = Field(default_factory=dict)
    train_options: Options = Field(default_factory=dict)

    @model_validator(mode="after")
    def _each_once(self) -> SweepDesign:
        """Checks that no value and no seed appears twice, because two runs would share a folder."""
        for name, values in [*self.budgets.items(), ("seeds", self.seeds)]:
            if len(set(values)) < len(values):
                raise ValueError(f"'{shown(name)}' must contain each value only once, got {shown(values)}")
        return self


class SweepPoint(Record):
    """One run that is finished.

    ``run``: its folder, relative to the folder of the sweep. ``costs``: the predicted costs of its child. ``measured``:
    the costs that a verification of the run measured. ``accuracy``: top-1 accuracy of the trained child on the
    validation images.
    """

    run: str
    seed: NonNegativeInt
    budgets: dict[str, PositiveFloat]
    costs: dict[str, float]
    measured: dict[str, float] = Field(default_factory=dict)
    accuracy: Accuracy
    on_front: bool = False


class FailedRun(Record):
    """One run that failed in every attempt, and the reason of the last failure."""

    run: str
    reason: str


class BudgetSummary(Record):
    """All finished seeds of one combination of budgets.

    The deviations are standard deviations of the sample over the seeds; None for a single seed.
    """

    budgets: dict[str, PositiveFloat]
    num_seeds: PositiveInt
    accuracy_mean: Accuracy
    accuracy_deviation: float | None
    cost_means: dict[str, float]
    cost_deviations: dict[str, float] | None


class SweepRecord(FileRecord):
    """``sweep.json``: the results of the finished runs of a sweep.

    ``design_digest``: the digest of its design. ``units``: the unit of each cost. ``measured_costs``: the costs for
    which the front and the summaries use measured values, because every finished run has one; for all other costs they
    use predicted values. A point is on the front when no other point is at least as good in accuracy and in every cost,
    and better in one of them.
    """

    file_format: ClassVar[str] = "dmask-sweep"

    design_digest: str
    num_runs: PositiveInt
    units: dict[str, str]
    measured_costs: tuple[str, ...] = ()
    points: tuple[SweepPoint, ...] = ()
    failed: tuple[FailedRun, ...] = ()
    summaries: tuple[BudgetSummary, ...] = ()

    def cost_of(self, point: SweepPoint, cost: str) -> float:
        """The cost of a point that the front uses: measured or predicted."""
        return (point.measured if cost in self.measured_costs else point.costs)[cost]
