"""Makes a `SweepRecord` from finished run folders: points, the Pareto front, mean and spread for each budget."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.sweep import BudgetSummary, FailedRun, SweepDesign, SweepPoint, SweepRecord
from dmask_mobile.records.verification import BUDGET_SUFFIX, Verification
from dmask_mobile.run import RunFolder
from dmask_mobile.sweep.design import PlannedRun, SweepFolder, planned_runs
from dmask_mobile.sweep.job import is_trained


def sweep_record(
    design: SweepDesign, folder: SweepFolder, units: Mapping[str, str], failed: Sequence[FailedRun] = ()
) -> SweepRecord:
    """The results of the finished runs of the sweep.

    Raises:
        DmaskError: if a file of a finished run is damaged.
    """
    runs = planned_runs(design)
    points = [_point(run, folder) for run in runs if is_trained(folder.run_path(run))]
    measured = [cost for cost in design.budgets if points and all(cost in point.measured for point in points)]
    record = SweepRecord(
        design_digest=design.digest(),
        num_runs=len(runs),
        units=dict(units),
        measured_costs=tuple(measured),
        failed=tuple(failed),
    )
    on_front = front_of([(tuple(record.cost_of(p, cost) for cost in design.budgets), p.accuracy) for p in points])
    marked = [point.model_copy(update={"on_front": on}) for point, on in zip(points, on_front, strict=True)]
    return record.model_copy(update={"points": tuple(marked), "summaries": tuple(_summaries(record, marked))})


def front_of(points: Sequence[tuple[tuple[float, ...], float]]) -> list[bool]:
    """Whether each point (its costs and its accuracy) is on the Pareto front.

    A point is on the front if no other point is better in one value and at least as good in all others.

    >>> front_of([((1.0,), 0.5), ((2.0,), 0.5), ((2.0,), 0.7)])
    [True, False, True]
    """
    signed = [(*costs, -accuracy) for costs, accuracy in points]

    def is_better(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [not any(is_better(other, own) for other in signed) for own in signed]


def _point(run: PlannedRun, folder: SweepFolder) -> SweepPoint:
    found = RunFolder(folder.run_path(run))
    record = found.record()
    if record.accuracy is None:
        raise DmaskError(f"'{found.path}' has no accuracy", "train it: dmask train RUN")
    costs = dict(zip((budget.cost for budget in record.budgets), found.result().costs, strict=True))
    return SweepPoint(
        run=found.path.relative_to(folder.path).as_posix(),
        seed=run.seed,
        budgets=dict(run.budgets),
        costs=costs,
        measured=_measured(found, costs),
        accuracy=record.accuracy,
    )


def _measured(run: RunFolder, costs: Mapping[str, float]) -> dict[str, float]:
    """The costs that a verification of the run's child measured; with several artifacts, the highest value."""
    if not run.verification_path.exists():
        return {}
    verification = Verification.read(run.verification_path)
    if verification.child_digest != run.child().digest():
        return {}
    found: dict[str, float] = {}
    for check in verification.checks:
        cost = check.quantity.removesuffix(BUDGET_SUFFIX)
        if cost in costs and check.quantity.endswith(BUDGET_SUFFIX) and check.measured is not None:
            found[cost] = max(check.measured, found.get(cost, check.measured))
    return found


def _summaries(record: SweepRecord, points: Sequence[SweepPoint]) -> Iterator[BudgetSummary]:
    def budgets_of(point: SweepPoint) -> list[tuple[str, float]]:
        return list(point.budgets.items())

    for budgets, found in groupby(sorted(points, key=budgets_of), budgets_of):
        of_budget = list(found)
        accuracies = [point.accuracy for point in of_budget]
        costs = {cost: [record.cost_of(point, cost) for point in of_budget] for cost, _ in budgets}
        several = len(of_budget) > 1
        yield BudgetSummary(
            budgets=dict(budgets),
            num_seeds=len(of_budget),
            accuracy_mean=statistics.fmean(accuracies),
            accuracy_deviation=statistics.stdev(accuracies) if several else None,
            cost_means={cost: statistics.fmean(values) for cost, values in costs.items()},
            cost_deviations={cost: statistics.stdev(values) for cost, values in costs.items()} if several else None,
        )
