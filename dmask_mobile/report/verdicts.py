"""The results of a verification in the order in which people need them: verdict, failures, artifacts, budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.verification import BUDGET_SUFFIX, Check, Verification
from dmask_mobile.report.records import ArtifactView, BudgetView, RunView, State, TableView
from dmask_mobile.run import RunRecord, SearchResultRecord

ORDER = {"failed": 0, "not verified": 1, "passed": 2, "not predicted": 3}
NUMERIC = ("max error", "mean error", "cosine", "SNR", "top-1 agreement", "accuracy", "precision shows", "golden pair")


def state_of(verification: Verification | None, checks: Sequence[Check]) -> State:
    """The state of these checks of a verification."""
    if verification is None or not checks:
        return "not yet verified"
    if any(check.verdict == "failed" for check in checks):
        return "failed"
    part = verification.model_copy(update={"checks": tuple(checks)})
    return "verified" if part.passed else "not verified"


def ordered(verification: Verification | None) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """All checks, failures first, and their verdicts in words."""
    if verification is None:
        return (), ()
    checks = tuple(
        sorted(verification.checks, key=lambda check: (verification.is_excused(check), ORDER[check.verdict]))
    )
    return checks, tuple(map(verification.verdict_of, checks))


def headline(state: State, verdicts: Sequence[str]) -> str:
    """The verdict in one sentence."""
    counts = Counter(verdicts)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items(), key=_by_order))
    match state:
        case "verified":
            return f"The exported models meet their predictions ({told})."
        case "failed":
            return f"Some results differ from their predictions ({told})."
        case "not verified":
            return f"Nothing failed, but not everything could be checked ({told})."
        case "not yet verified":
            return "No exported model has been compared with its predictions yet."


def _by_order(item: tuple[str, int]) -> tuple[int, str]:
    return ORDER.get(item[0], len(ORDER)), item[0]


def artifact_views(artifacts: Sequence[Artifact], verification: Verification | None) -> tuple[ArtifactView, ...]:
    """The exported models with their measurements."""
    views = []
    for artifact in artifacts:
        checks = [c for c in verification.checks if c.artifact == artifact.label] if verification else []
        accuracies = (check.measured for check in checks if check.quantity.startswith("accuracy"))
        views.append(
            ArtifactView(
                label=artifact.label,
                model_format=artifact.model_format,
                precision=artifact.precision,
                file=artifact.path,
                sha256=artifact.sha256,
                size_bytes=artifact.size_bytes,
                accuracy=next(accuracies, None),
                latency=tuple(check for check in checks if is_latency(check)),
                state=state_of(verification, checks),
                numerics=tuple(check for check in checks if check.quantity.startswith(NUMERIC)),
            )
        )
    return tuple(views)


def is_latency(check: Check) -> bool:
    """Whether a line is about the latency of an artifact, and not about a budget."""
    name = check.quantity.partition("@")[0]
    return name == "latency" and not check.quantity.endswith(BUDGET_SUFFIX)


def budget_views(
    record: RunRecord,
    result: SearchResultRecord | None,
    tables: Sequence[TableView],
    verification: Verification | None,
) -> tuple[BudgetView, ...]:
    """Each budget of the search with the expected cost of the gates, the child's prediction, and the measurement."""
    views = []
    for number, budget in enumerate(record.budgets):
        lines = [c for c in verification.checks if c.quantity == budget.cost + BUDGET_SUFFIX] if verification else []
        line = min(lines, key=lambda check: (check.measured is None, ORDER[check.verdict]), default=None)
        known = result is not None and number < min(len(result.costs), len(result.expected))
        predicted = next((table.predicted_ms for table in tables if table.cost == budget.cost), None)
        views.append(
            BudgetView(
                cost=budget.cost,
                unit=budget.unit,
                limit=budget.limit,
                expected=result.expected[number] if result is not None and known else None,
                predicted=result.costs[number] if result is not None and known else predicted,
                measured=line.measured if line else None,
                verdict=verification.verdict_of(line) if verification and line else "",
            )
        )
    return tuple(views)


def measured_latency(run: RunView, cost: str) -> Check | None:
    """The first line with a measured latency for a table."""
    lines = (check for artifact in run.artifacts for check in artifact.latency if check.quantity.startswith(cost))
    return next((check for check in lines if check.measured is not None), None)
