"""What a search reports about its gates: a line of ``metrics.jsonl`` for each epoch, progress, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dmask_mobile.costs.model import ExpectedCost
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.state import SearchState, StepRecord
from dmask_mobile.supernet.gates import GateLogits

COLLAPSED = 0.9  # a search has collapsed when every skip gate skips with at least this probability
LEARNED = 0.05  # of what guessing gets wrong: the least that the best trial must get right


class SearchMetrics:
    """Measures the gates of one search.

    Args:
        budgets: the budgets of the search.
        costs: for each budget, the expected cost that the gates learn from.
        can_collapse: whether gates that skip all blocks indicate a problem. With soft gates they do; losses of single
            children may show that a shallow child is the best.
    """

    def __init__(self, budgets: Sequence[Budget], costs: Sequence[ExpectedCost], can_collapse: bool) -> None:
        self.budgets = budgets
        self.costs = costs
        self.can_collapse = can_collapse

    @torch.no_grad()
    def expected(self, logits: GateLogits) -> tuple[float, ...]:
        """The expected cost for each budget, in the unit of the cost."""
        probabilities = logits.probabilities()
        return tuple(float(cost.expected(probabilities)) for cost in self.costs)

    def line(self, state: SearchState, others: dict[str, Any]) -> dict[str, Any]:
        """One line of ``metrics.jsonl``: the numbers of the epoch that has just ended, and ``others``."""
        with torch.no_grad():
            probabilities, entropies = state.logits.probabilities(), state.logits.normalized_entropies()
        decisions = state.supernet.space.decisions
        undecided = [decision.name for decision in decisions if len(decision.options) > 1]
        return {
            "epoch": state.epoch,
            **others,
            "weights": _means(state.weight_steps),
            "gates": _means(state.gate_steps),
            "expected": dict(zip((b.cost.name for b in self.budgets), self.expected(state.logits), strict=True)),
            "budgets": {b.cost.name: b.limit for b in self.budgets},
            "entropy": mean_entropy(state.logits),
            "entropies": dict(zip(undecided, entropies.tolist(), strict=False)),
            "probabilities": {d.name: gate.tolist() for d, gate in zip(decisions, probabilities, strict=True)},
            "warnings": list(self.warnings(state)),
        }

    def note(self, state: SearchState) -> str:
        """A short form of the same, for progress messages."""
        expected = self.expected(state.logits)
        ratios = [value / budget.limit for value, budget in zip(expected, self.budgets, strict=True)]
        warning = "".join(f"; warning: {text}" for text in self.warnings(state))
        entropy = mean_entropy(state.logits)
        return f"expected/budget {', '.join(f'{r:.3f}' for r in ratios)}, entropy {entropy:.2f}{warning}"

    def warnings(self, state: SearchState) -> tuple[str, ...]:
        """Problems with the gates that do not stop the search."""
        return _warnings_of_collapse(state) if self.can_collapse else _warnings_of_trials(state)


@torch.no_grad()
def mean_entropy(logits: GateLogits) -> float:
    """The mean normalized entropy of the gates: 1 undecided, 0 decided."""
    return float(logits.normalized_entropies().mean())


@torch.no_grad()
def _warnings_of_collapse(state: SearchState) -> tuple[str, ...]:
    """A warning if all blocks are skipped that can be skipped."""
    decisions = state.supernet.space.decisions
    skips = [p[1] for d, p in zip(decisions, state.logits.probabilities(), strict=True) if d.kind == "skip"]
    if skips and min(skips) >= COLLAPSED:
        return (
            f"all {len(skips)} blocks that may be skipped are skipped. Unless the budget is that tight, lengthen the"
            " warm-up (--warmup) or lower --gate-learning-rate, and start again with --restart",
        )
    return ()


def _warnings_of_trials(state: SearchState) -> tuple[str, ...]:
    """A warning if the children that were trained shortly have hardly learned anything."""
    guessing = 1 / state.supernet.space.classes
    best = max((trial.accuracy for trial in state.trials), default=1.0)
    if best >= guessing + LEARNED * (1 - guessing):
        return ()
    return (
        f"the best of {len(state.trials)} trials has an accuracy of {best:.1%}, and guessing has {guessing:.1%}, so the"
        " trials hardly say which child is better. Lengthen them (--trial-epochs), and start again with --restart",
    )


def _means(steps: Sequence[StepRecord]) -> dict[str, float]:
    """Mean loss and accuracy; empty if there are no steps."""
    if not steps:
        return {}
    loss, accuracy = (sum(values) / len(steps) for values in zip(*steps, strict=True))
    return {"loss": loss, "accuracy": accuracy}
