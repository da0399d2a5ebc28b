"""What is compared, on which data, how often: everything that a person may want to change stands in this file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dmask_mobile.records.base import Record
from dmask_mobile.records.space import SearchSpace, load_space

ContenderName = Literal[
    "searched", "uniform", "random", "capacity", "ungated", "evolved", "searched_macs", "mobilenetv3"
]
EVERYTHING: tuple[ContenderName, ...] = (
    "searched",
    "uniform",
    "random",
    "capacity",
    "ungated",
    "evolved",
    "searched_macs",
    "mobilenetv3",
)

SPACES = {
    "untied": SearchSpace.model_validate(
        {
            "name": "untied",
            "input": {"resolutions": [16, 24, 32]},
            "stem": {"widths": [8, 12, 16, 24], "activation": "relu"},
            "stages": [
                {"blocks": 2, "widths": [8, 12, 16, 20, 24], "expansions": [1, 2, 3], "kernels": [3, 5], "tied": False},
                {"blocks": 3, "widths": [16, 24, 32, 40, 48], "stride": 2, "expansions": [1, 2, 3, 4],
                 "kernels": [3, 5], "tied": False},
                {"blocks": 3, "widths": [32, 48, 64, 80], "stride": 2, "expansions": [1, 2, 3, 4], "kernels": [3, 5],
                 "squeeze_excite": [False, True], "activation": "hswish", "tied": False},
            ],
            "last": {"widths": [96, 128, 192, 256]},
        }
    ),
    "tiny": SearchSpace.model_validate(
        {
            "name": "tiny",
            "input": {"resolutions": [8, 16]},
            "stem": {"widths": [8, 16]},
            "stages": [
                {"blocks": 3, "widths": [8, 16, 24], "stride": 2, "expansions": [1, 2, 3], "skip": True},
            ],
            "last": {"widths": [16, 32, 48]},
        }
    ),
}  # fmt: skip
"""Spaces beside those that ship: every block has a width of its own here, and nothing may be skipped."""


class Setting(Record):
    """One data set, one space, one budget.

    ``data``: what ``--data`` names; ``budget_macs``: the budget is the latency that is typical of children with so many
    multiply-adds; ``search_epochs``: of a search; ``train_images``, ``val_images``: at most so many are used.
    """

    name: str
    data: str
    space: str = "mobilenet_small"
    resolutions: tuple[int, ...]
    budget_macs: PositiveFloat
    epochs: PositiveInt
    search_epochs: PositiveInt
    train_images: PositiveInt | None = None
    val_images: PositiveInt | None = None
    contenders: tuple[ContenderName, ...] = EVERYTHING

    def search_space(self, classes: int) -> SearchSpace:
        """The space for this data."""
        space = SPACES[self.space] if self.space in SPACES else load_space(self.space)
        resolutions = {"resolutions": self.resolutions}
        return SearchSpace.model_validate({**space.model_dump(), "classes": classes, "input": resolutions})


class Ungated(Record):
    """How a trained supernet is searched without gates.

    ``evaluations``: children that random search and evolution may judge, each; ``images``: validation images that judge
    a child; ``recalibration_images``: training images that its batch norms see. ``population``, ``sample``: those of
    regularized evolution (Real et al., 2019).
    """

    evaluations: PositiveInt
    images: PositiveInt = 1000
    recalibration_images: PositiveInt = 512
    population: PositiveInt = 50
    sample: PositiveInt = 10
    trainings: PositiveInt = 1


class Measuring(Record):
    """How latencies are measured, and how alike they must be.

    ``tolerance``: the measured latency of a contender may lie so far from the median of the random children, as a
    share; ``attempts``: choices of each contender before the nearest one is taken; a scaled network that then deviates
    by more than ``out_of_reach`` is left out: its way of scaling does not lead to the budget. A pass measures every
    network ``rounds`` times for ``seconds``; passes are repeated, at most ``passes`` times, until two of them agree
    within ``agreement`` on 90% of the networks.
    """

    tolerance: float = Field(default=0.01, gt=0, lt=1)
    attempts: PositiveInt = 5
    out_of_reach: float = Field(default=0.05, gt=0)
    rounds: PositiveInt = 5
    seconds: PositiveFloat = 0.05
    agreement: float = Field(default=0.01, gt=0, lt=1)
    passes: int = Field(default=4, ge=2)
    profile_minutes: PositiveFloat = 6.0


class Protocol(Record):
    """A form of the protocol.

    ``searches``: each with a seed of its own, from ``first_seed`` on; ``trainings``: of each searched child and of each
    scaled network; ``random_children``: each trained once.
    """

    form: str
    settings: tuple[Setting, ...]
    first_seed: int
    searches: int = Field(ge=2)
    trainings: PositiveInt
    random_children: int = Field(ge=2)
    ungated: Ungated
    measuring: Measuring = Measuring()

    @property
    def seeds(self) -> range:
        """Those of the searches."""
        return range(self.first_seed, self.first_seed + self.searches)


QUICK = Protocol(
    form="quick",
    settings=(
        Setting(
            name="photographs",
            data="photographs",
            resolutions=(32, 48, 64),
            budget_macs=3e6,
            epochs=10,
            search_epochs=2,
            train_images=6_000,
            contenders=("searched", "uniform", "random", "capacity", "evolved"),
        ),
        Setting(
            name="glyphs",
            data="glyphs",
            resolutions=(16, 24, 32),
            budget_macs=1e6,
            epochs=24,
            search_epochs=6,
            train_images=6_000,
            val_images=2_000,
            contenders=("searched", "uniform", "random", "capacity", "evolved"),
        ),
    ),
    first_seed=1000,
    searches=3,
    trainings=1,
    random_children=8,
    ungated=Ungated(evaluations=200, images=500, recalibration_images=256, population=25, sample=5),
    measuring=Measuring(profile_minutes=3),
)
"""Each data set in at most an hour of one core: for developing the search."""

WHOLE = Protocol(
    form="whole",
    settings=(
        Setting(name="fashion_mnist_small", data="fashion_mnist", resolutions=(20, 24, 28), budget_macs=0.7e6,
                epochs=10, search_epochs=2, train_images=10_000, val_images=4_000,
                contenders=("searched", "uniform", "random", "capacity", "searched_macs", "mobilenetv3")),
        Setting(name="fashion_mnist_large", data="fashion_mnist", resolutions=(20, 24, 28), budget_macs=1.5e6,
                epochs=10, search_epochs=2, train_images=10_000, val_images=4_000,
                contenders=("searched", "uniform", "random", "capacity", "mobilenetv3")),
        Setting(name="glyphs", data="glyphs", resolutions=(16, 24, 32), budget_macs=1e6, epochs=24, search_epochs=6,
                train_images=6_000, val_images=2_000),
        Setting(name="glyphs_untied", data="glyphs", space="untied", resolutions=(16, 24, 32), budget_macs=1e6,
                epochs=24, search_epochs=6, train_images=6_000, val_images=2_000,
                contenders=("searched", "uniform", "random", "capacity", "mobilenetv3")),
        Setting(name="photographs", data="photographs", resolutions=(32, 48, 64), budget_macs=3e6, epochs=12,
                search_epochs=2, train_images=6_000),
    ),
    first_seed=20,
    searches=5,
    trainings=2,
    random_children=20,
    ungated=Ungated(evaluations=1000, images=500, recalibration_images=256),
)  # fmt: skip
"""All data sets, with seeds that no development has seen; those of 0 to 14 have been looked at on photographs."""

TINY = Protocol(
    form="tiny",
    settings=(
        Setting(name="glyphs", data="glyphs", space="tiny", resolutions=(8, 16), budget_macs=0.05e6, epochs=2,
                search_epochs=2, train_images=200, val_images=100,
                contenders=("searched", "uniform", "random", "capacity", "ungated", "evolved")),
    ),
    first_seed=0,
    searches=2,
    trainings=1,
    random_children=2,
    ungated=Ungated(evaluations=3, images=50, recalibration_images=50, population=2, sample=2),
    measuring=Measuring(attempts=1, out_of_reach=9, rounds=1, seconds=0.01, passes=2, agreement=0.5, profile_minutes=1),
)  # fmt: skip
"""Every step once, in seconds: for tests of the harness. Its figures mean nothing."""

FORMS = {protocol.form: protocol for protocol in (QUICK, WHOLE, TINY)}
