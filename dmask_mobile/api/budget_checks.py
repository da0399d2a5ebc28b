"""The lines of a verification about the budgets of a run; each budget has a line with its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dmask_mobile.cost_names import TABLE_SEPARATOR, cost_model
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.quantities import TABLE_UNITS
from dmask_mobile.records.verification import BUDGET_SUFFIX, ROUNDING, Check, line_of

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel
    from dmask_mobile.records.artifact import ModelFormat
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.run import BudgetRecord, RunRecord
    from export.verification.latency_verdict import PredictedLatency
    from export.verification.metric_verdict import PredictedMetric

BUILT_IN = ("macs", "params", "weight_bytes", "peak_activation_bytes")


def is_of_table(budget: BudgetRecord) -> bool:
    """Whether the budget belongs to a latency table: ``latency``, ``latency@NAME``, ``memory`` and so on."""
    return not budget.custom and budget.cost.partition(TABLE_SEPARATOR)[0] in TABLE_UNITS


def table_budgets(record: RunRecord, table: str, line: str, only_table: bool) -> dict[str, float]:
    """The run's budgets for one quantity of one latency table, by their names in the search.

    Args:
        record: the run.
        table: the table's name.
        line: the name of the quantity in this verification: ``latency``, ``memory@NAME`` and so on.
        only_table: whether it is the only table of the search, so that ``latency`` refers to it.
    """
    quantity = line.partition(TABLE_SEPARATOR)[0]
    names = {line, f"{quantity}{TABLE_SEPARATOR}{table}", *((quantity,) if only_table else ())}
    return {budget.cost: budget.limit for budget in record.budgets if budget.cost in names}


def check_custom_costs(record: RunRecord | None, costs: Sequence[CostModel]) -> None:
    """Refuses a custom cost that no budget of the run names.

    Raises:
        DmaskError: naming the cost and the run's budgets.
    """
    budgets = [budget.cost for budget in record.budgets] if record else []
    for cost in costs:
        if cost.name not in budgets:
            raise DmaskError(
                f"--cost gives '{cost.name}', which is not a budget of this run: {', '.join(budgets) or 'it has none'}",
                "give the class that was used in the search, or leave out --cost",
            )


def budget_checks(
    record: RunRecord,
    child: ChildSpec,
    costs: Sequence[CostModel],
    predictions: Sequence[PredictedLatency | PredictedMetric],
    formats: set[ModelFormat],
    checks: Sequence[Check],
) -> Iterator[Check]:
    """A line for each budget of the run that has no line of an artifact.

    Args:
        record: the run.
        child: its network.
        costs: custom cost models.
        predictions: the predictions of all tables, of latencies and metrics.
        formats: the formats that were verified.
        checks: the lines so far.
    """
    done = {check.quantity for check in checks}
    for budget in record.budgets:
        if not is_of_table(budget):
            yield _computed(budget, record, child, costs)
        elif budget.cost + BUDGET_SUFFIX not in done:
            yield _unmeasured(budget, predictions, formats)


def _computed(budget: BudgetRecord, record: RunRecord, child: ChildSpec, costs: Sequence[CostModel]) -> Check:
    """The line of a budget whose cost is computed from the child, by the cost model of the search."""
    name = budget.cost + BUDGET_SUFFIX
    brought = budget.cost in {cost.name for cost in costs}
    if not brought and (budget.custom or budget.cost not in BUILT_IN):
        note = f"'{shown(budget.cost)}' is a custom cost: give its class with --cost module:Class"
        return line_of("run", name, budget.unit, budget.limit, None, "-", "not verified", note)
    value = cost_model(budget.cost, costs=costs, precision=record.precision).estimate(child).value
    kept = value <= budget.limit * (1 + ROUNDING)
    note = "" if kept else f"over by {value - budget.limit:,.6g} {budget.unit}"
    if budget.cost == "weight_bytes":
        note = "; ".join(filter(None, (note, f"as {record.precision or 'fp32'}")))
    return line_of("run", name, budget.unit, budget.limit, value, "at most +0", "passed" if kept else "failed", note)


def _unmeasured(
    budget: BudgetRecord, predictions: Sequence[PredictedLatency | PredictedMetric], formats: set[ModelFormat]
) -> Check:
    """The line of a budget of a table for which no artifact was measured."""
    name = budget.cost + BUDGET_SUFFIX
    of = [prediction for prediction in predictions if budget.cost in prediction.budgets]
    if not of:
        note = "its table was not found; give --table"
        return line_of("run", name, budget.unit, budget.limit, None, "-", "not verified", note)
    predicted = of[0].predicted if isinstance(of[0].predicted, float) else of[0].predicted.ms
    if predicted > budget.limit * (1 + ROUNDING):
        note = f"the table predicts {predicted:.4g} {budget.unit}, over the budget"
        return line_of("run", name, budget.unit, budget.limit, None, "-", "failed", note)
    which = f"{of[0].model_format} {of[0].precision}" if of[0].model_format in formats else of[0].model_format
    note = f"no {which} artifact to measure"
    return line_of("run", name, budget.unit, budget.limit, None, "-", "not verified", note)
