"""The gates learn on shared weights that were trained one child at a time.

Each weight step trains one child near the budgets, drawn as if no gate had decided anything (`near_budget`; without
budgets: Guo et al., "Single Path One-Shot NAS", ECCV 2020). So the shared weights do not adapt to the preferences of
the gates, and a step is as fast as a training step of one child. Towards the end, children are drawn and evaluated on
the gates' images, several children on the same images. In the last epoch a few children are trained shortly from
scratch (`trials`). A linear model of both kinds of losses (`loss_model`) estimates the effect of each option. The gates
become the Gibbs distribution of that model: better options are more likely, and the expected costs are at the budgets.
The gates are then sharpened until they are decided. This replaces the gradient through soft gates, which describes a
mixture of children and not any single child.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dmask_mobile.records.choice import Choice
from dmask_mobile.search.loss_model import LEAST_SPREAD, Evaluation, LossModel, Trial
from dmask_mobile.search.near_budget import centre_on_budgets, decide, draw_near
from dmask_mobile.search.parts import SearchParts
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.training.checks import Agreed

CHILDREN_A_GROUP = 8  # children that see the same images
NATS_A_SPREAD = 2.0  # the gain in log-probability of an option that lowers the loss by one spread


class SinglePath:
    """Draws children for weight steps and evaluates children; the gates learn from the losses after each epoch."""

    def __init__(self, parts: SearchParts) -> None:
        self.parts = parts
        self.prior = GateLogits(parts.supernet.space)
        centre_on_budgets(self.prior, parts.loss.costs, parts.loss.budgets)
        parts.state.logits.load_state_dict(self.prior.state_dict())
        trained = parts.settings.epochs * parts.num_weight_steps  # more children than this cannot be distinguished
        self.num_steps = -(-min(parts.settings.evaluations, trained) // parts.num_gate_epochs)

    def draw(self) -> Choice:
        """The child that the next weight step trains."""
        return draw_near(self.prior, self.parts.budgets, self.parts.state.noise)

    def steps(self) -> Iterator[Agreed]:
        """Evaluates the remaining children of this epoch: half are drawn from the proposal, half from the prior.

        Batch norms use the statistics of the group's images, as in training, so no recalibration is needed.
        """
        parts = self.parts
        proposals = self.learned(parts.state.evaluations[: parts.gate_epoch * self.num_steps])
        done = len(parts.state.gate_steps)
        groups = itertools.groupby(range(done, self.num_steps), lambda step: step // CHILDREN_A_GROUP)
        loaded = parts.gate_batches(parts.settings.evaluation_images, done // CHILDREN_A_GROUP)
        for (number, steps), batch in zip(groups, loaded, strict=False):
            for step in steps:
                choice = draw_near(proposals if step % 2 else self.prior, parts.budgets, parts.state.noise)
                with torch.no_grad():
                    _, agreed = parts.judge(choice, batch)
                group = parts.state.epoch * self.num_steps + number
                parts.state.evaluations.append(Evaluation(group, agreed.loss, choice))
                yield agreed

    def finish_epoch(self) -> None:
        """Fits the gates to everything so far, from the start: a decision based on less would be hard to undo."""
        parts = self.parts
        learned = self.learned(parts.state.evaluations, parts.state.trials)
        decide(learned, parts.loss.costs, parts.loss.budgets, parts.settings.schedule.last_entropy)
        parts.state.logits.load_state_dict(learned.state_dict())

    def metrics(self) -> dict[str, Any]:
        """Empty: there is no temperature, and the budgets are met without controllers."""
        return {}

    def learned(self, evaluations: Sequence[Evaluation], trials: Sequence[Trial] = ()) -> GateLogits:
        """The prior with better options made more likely; its costs are at the budgets, and it is far from decided."""
        logits = GateLogits(self.parts.supernet.space)
        logits.load_state_dict(self.prior.state_dict())
        if evaluations:
            model = LossModel(self.parts.supernet.space, evaluations, trials)
            with torch.no_grad():
                for row, effects in zip(logits.logits, model.effects, strict=True):
                    row[: len(effects)] -= NATS_A_SPREAD / max(model.spread, LEAST_SPREAD) * torch.from_numpy(effects)
            centre_on_budgets(logits, self.parts.loss.costs, self.parts.loss.budgets)
        return logits
