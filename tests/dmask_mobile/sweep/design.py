"""A design of four runs, and run folders as a search and a training leave them."""

from __future__ import annotations

from pathlib import Path

from dmask_mobile.records.artifact import Preprocessing
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.sweep import SweepDesign
from dmask_mobile.run import BudgetRecord, RunFolder, RunRecord, SearchResultRecord
from dmask_mobile.sweep.design import PlannedRun, SweepFolder
from tests.dmask_mobile.small import SPACE

DESIGN = SweepDesign(
    space=SPACE, data="glyphs", data_digest="0" * 16, budgets={"macs": (100_000.0, 150_000.0)}, seeds=(0, 1)
)


def finish(run: PlannedRun, folder: SweepFolder, cost: float, accuracy: float) -> None:
    """Makes the folder of a finished run."""
    found = RunFolder(folder.run_path(run))
    choice = Choice(indices=tuple(0 for _ in SPACE.decisions))
    RunRecord(
        created="2026-01-01T00:00:00.000+00:00",
        versions={},
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
        class_names=tuple(map(str, range(36))),
        space=SPACE,
        budgets=tuple(BudgetRecord(cost=name, limit=limit, unit=name) for name, limit in run.budgets.items()),
        accuracy=accuracy,
    ).write(found.record_path)
    SPACE.child(choice).write(found.child_path)
    SearchResultRecord(
        choice=choice, decided={}, expected=(cost,), entropy=0.0, score=0.0, costs=(cost,), gap=0.0,
        probabilities={d.name: (1.0,) + (0.0,) * (len(d.options) - 1) for d in SPACE.decisions},
        lower_bound_relaxed=False, derivation="exact",
    ).write(found.search_result)  # fmt: skip


def finished_sweep(path: Path, points: list[tuple[float, float]]) -> SweepFolder:
    """A sweep in which the first runs have these costs and accuracies."""
    from dmask_mobile.sweep.design import planned_runs

    folder = SweepFolder(path)
    for run, (cost, accuracy) in zip(planned_runs(DESIGN), points, strict=False):
        finish(run, folder, cost, accuracy)
    return folder
