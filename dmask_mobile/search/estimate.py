"""Estimates the duration of a search from two steps of each kind."""

from __future__ import annotations

from dmask_mobile.records.estimate import Estimate
from dmask_mobile.search.search import Searcher
from dmask_mobile.training.checks import Agreement
from dmask_mobile.training.estimate import estimate_of, timed


def estimate_searching(searcher: Searcher) -> Estimate:
    """The duration and memory of the whole search, extrapolated from two weight steps and two gate steps."""
    agreement = Agreement(searcher.machine, lambda: None)
    searcher.called.train()
    steps = [
        timed(f"{kind} steps", count, made)
        for kind, count, made in zip(
            ("weight", "gate"),
            searcher.num_steps(),
            (searcher.train_weights(agreement), searcher.train_gates(agreement)),
            strict=True,
        )
    ]
    return estimate_of(steps, searcher.machine)
