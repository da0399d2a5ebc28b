"""Which children are trained shortly: at first different ones, then those that may be the best.

Random children within a budget are alike: nearly all have about the same number of blocks and the same mean width, so
that their losses do not tell how the loss depends on these. So the first half of the trials trains children from the
corners of the space, chosen to tell the most about the effects (D-optimal design; Fedorov, "Theory of Optimal
Experiments", 1972). The next trial is of the largest child, scaled uniformly to the budgets, which a person would take
without a search: like every trained child, it is taken if the model expects nothing better. Each further trial trains
the best child by effects drawn from what is known (Thompson, Biometrika, 1933), and the last one always the best child
by the expected effects.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from dmask_mobile.interruption import check_stopped
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.loss_model import Effects, LossModel, Trial
from dmask_mobile.search.parts import SearchParts
from dmask_mobile.search.scaling import scaled_within
from dmask_mobile.search.single_path import SinglePath

NUM_CORNERS = 16
ATTEMPTS = 5  # at a child that was not trained yet


class Proposals:
    """Proposes the next child; after an interruption the same one. A signal stops it between two derivations."""

    def __init__(self, parts: SearchParts, gates: SinglePath, progress: Progress = silent) -> None:
        self.parts, self.gates, self.progress = parts, gates, progress

    def next(self) -> Choice:
        """The child within the budgets that the next trial trains; its loss is not known yet, if possible."""
        settings, trials = self.parts.settings, self.parts.state.trials
        tried, model = [trial.choice for trial in trials], self._model(trials)
        if len(tried) < settings.trials / 2:
            fresh = [corner for corner in self._corners if corner not in tried]
            return model.most_informative(fresh or self._corners, tried)
        is_last = len(tried) + 1 == settings.trials
        if len(tried) == math.ceil(settings.trials / 2) and not is_last:
            scaled = scaled_within(self.parts.supernet.space, self.parts.budgets)
            if scaled is not None and scaled not in tried:
                return scaled
        generator = np.random.default_rng((settings.seed + 1) * 100_003 + len(tried))
        for attempt in range(ATTEMPTS):
            effects = model.expected if is_last and attempt == 0 else model.drawn(generator)
            choice = self._best(effects)
            if choice not in tried:
                break
        return choice

    @functools.cached_property
    def _corners(self) -> list[Choice]:
        """The best children by effects that point along the directions that blocks share, in random combinations."""
        generator = np.random.default_rng(self.parts.settings.seed)
        found: dict[Choice, None] = {}
        for number, effects in enumerate(self._model([]).corners(generator, NUM_CORNERS), start=1):
            found[self._best(effects)] = None
            self.progress("corner", number, NUM_CORNERS)
        return list(found)

    def _best(self, effects: Effects) -> Choice:
        """The best child by ``effects``; deriving it may take seconds in a large space.

        Several processes stop together, in the next training step.
        """
        if self.parts.machine.share.processes == 1:
            check_stopped("search")
        return self.gates.best(effects)

    def _model(self, trials: Sequence[Trial]) -> LossModel:
        """The model of all evaluations and of ``trials``."""
        model = self.gates.model(self.parts.state.evaluations, trials)
        assert model is not None, "trials follow the evaluations"
        return model
