"""Estimates the duration of a search from two steps of each kind."""

from __future__ import annotations

from dmask_mobile.records.estimate import Estimate
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.sensitivity import Sensitivity
from dmask_mobile.search.single_path import SinglePath
from dmask_mobile.search.trials import trial_trainer
from dmask_mobile.training.checks import Agreement
from dmask_mobile.training.estimate import estimate_of, timed

TYPICAL_STEPS = 8  # of a search whose steps take differently long


def estimate_searching(searcher: Searcher) -> Estimate:
    """The duration and memory of the whole search, extrapolated from two steps of each kind."""
    agreement = Agreement(searcher.machine, lambda: None)
    searcher.called.train()
    weight_steps, gate_steps = searcher.num_steps()
    steps = [timed("weight steps", weight_steps, searcher.train_weights(agreement))]
    if isinstance(searcher.gate_training, Sensitivity):
        searcher.parts.agreement = agreement
        changes = searcher.gate_training.typical_steps(TYPICAL_STEPS)
        steps.append(timed("gate steps", gate_steps, changes, TYPICAL_STEPS))
    else:
        steps.append(timed("gate steps", gate_steps, searcher.train_gates(agreement)))
    if isinstance(searcher.gate_training, SinglePath) and searcher.settings.trials:
        trainer = trial_trainer(searcher.parts, searcher.gate_training)
        count = searcher.settings.trials * searcher.settings.epochs_of_a_trial * trainer.steps
        steps.append(timed("trial steps", count, trainer.train_epoch(agreement)))
    return estimate_of(steps, searcher.machine)
