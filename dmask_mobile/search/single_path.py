"""The gates learn on shared weights that were trained one child at a time.

Each weight step trains one child near the budgets, drawn as if no gate had decided anything (`near_budget`; without
budgets: Guo et al., "Single Path One-Shot NAS", ECCV 2020). So the shared weights do not adapt to the preferences of
the gates, and a step is as fast as a training step of one child. Towards the end, children are drawn and evaluated on
the gates' images, several children on the same images. In the last epoch a few children are trained shortly by
themselves (`trials`). A linear model of both kinds of losses (`loss_model`) estimates the effect of each option. The
gates become the Gibbs distribution of that model: better options are more likely, and the expected costs are at the
budgets. The options of the child with the lowest expected loss are preferred to all others: of the best one by the
model, or of a trained child that is expected to be better. The gates are then sharpened until they are decided. This
replaces the gradient through soft gates, which describes a mixture of children and not any single child.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget, derive_within, is_quickly_exact
from dmask_mobile.search.loss_model import Effects, Evaluation, LossModel, Trial
from dmask_mobile.search.near_budget import centre_on_budgets, decide, draw_near
from dmask_mobile.search.parts import SearchParts
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.training.checks import Agreed

STEPS_AN_EVALUATION = 3  # weight steps, at least; an evaluation takes about as long as a step
CHILDREN_A_GROUP = 8  # children that see the same images
NATS_A_SPREAD = 2.0  # the gain in log-probability of an option that lowers the loss by one spread
UNDECIDED = 0.3  # the entropy of gates of which children near the budgets can still be drawn
PREFERRED = 4.0  # how much more likely, in log-probability, the options of the preferred child are than all others


class SinglePath:
    """Draws children for weight steps and evaluates children; the gates learn from the losses after each epoch."""

    def __init__(self, parts: SearchParts) -> None:
        self.parts = parts
        self.prior = GateLogits(parts.supernet.space)
        centre_on_budgets(self.prior, parts.loss.costs, parts.loss.budgets)
        parts.state.logits.load_state_dict(self.prior.state_dict())
        trained = parts.settings.epochs * parts.num_weight_steps
        most = max(trained // STEPS_AN_EVALUATION, min(trained, CHILDREN_A_GROUP))
        evaluations = min(parts.settings.evaluations, most)
        self.num_steps = -(-evaluations // parts.num_gate_epochs)

    def draw(self) -> Choice:
        """The child that the next weight step trains."""
        return draw_near(self.prior, self.parts.budgets, self.parts.state.noise)

    def steps(self) -> Iterator[Agreed]:
        """Evaluates the remaining children of this epoch: half are drawn from the proposal, half from the prior.

        Batch norms use the statistics of the group's images, as in training, so no recalibration is needed.
        """
        parts = self.parts
        model = self.model(parts.state.evaluations[: parts.gate_epoch * self.num_steps], [])
        proposals = self.following(model.expected if model else None)
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
        model = self.model(parts.state.evaluations, parts.state.trials)
        gates = self.following(model.expected if model else None)
        if model and (child := self._expected_best(model)) is not None:
            self._prefer_child(gates, child)
        decide(gates, parts.loss.costs, parts.loss.budgets, parts.settings.schedule.last_entropy)
        parts.state.logits.load_state_dict(gates.state_dict())

    def metrics(self) -> dict[str, Any]:
        """Empty: there is no temperature, and the budgets are met without controllers."""
        return {}

    def model(self, evaluations: Sequence[Evaluation], trials: Sequence[Trial]) -> LossModel | None:
        """The model of losses; None before the first evaluation."""
        return LossModel(self.parts.supernet.space, evaluations, trials) if evaluations else None

    def following(self, effects: Effects | None) -> GateLogits:
        """The prior with better options made more likely; its costs are at the budgets, and it is far from decided."""
        logits = GateLogits(self.parts.supernet.space)
        logits.load_state_dict(self.prior.state_dict())
        if effects is not None:
            prefer(logits, self.parts.supernet.space, effects)
            centre_on_budgets(logits, self.parts.loss.costs, self.parts.loss.budgets)
        return logits

    def best(self, effects: Effects) -> Choice:
        """The child within the budgets with the lowest loss by ``effects``, if only one is of a sum, others of peaks.

        Otherwise a child near the budgets with a low loss: deriving the best one may take minutes, or fail.
        """
        parts = self.parts
        if is_quickly_exact(parts.budgets):
            return best_child(parts.supernet.space, effects, parts.budgets)
        logits = self.following(effects)
        decide(logits, parts.loss.costs, parts.loss.budgets, UNDECIDED)
        return draw_near(logits, parts.budgets, torch.Generator().manual_seed(parts.settings.seed))

    def _expected_best(self, model: LossModel) -> Choice | None:
        """The child with the lowest expected loss: the best one by the model, or one that was trained and is better.

        None if neither is known: the best one by the model was not derived exactly, and no trained child is better.
        """
        is_exact = is_quickly_exact(self.parts.budgets)
        if model.best_trial is None and not is_exact:
            return None
        best = self.best(model.expected)
        if model.best_trial is not None and model.best_trial[1] < model.of(best):
            return model.best_trial[0]
        return best if is_exact else None

    def _prefer_child(self, logits: GateLogits, choice: Choice) -> None:
        """Makes one child the most likely one."""
        with torch.no_grad():
            for row, option in zip(logits.logits, choice.indices, strict=True):
                row[option] = row.max() + PREFERRED
        centre_on_budgets(logits, self.parts.loss.costs, self.parts.loss.budgets)


def best_child(space: SearchSpace, effects: Effects, budgets: Sequence[Budget]) -> Choice:
    """The child within the budgets with the lowest loss by ``effects``."""
    logits = GateLogits(space)
    prefer(logits, space, effects)
    return derive_within(budgets, logits.as_arrays()).choice


def prefer(logits: GateLogits, space: SearchSpace, effects: Effects) -> None:
    """Makes options more likely that lower the loss.

    The score of a child (`search.derive`) compares each option with the best one of its gate, and counts no option
    inside a skipped block. So what the best options inside a block gain is added to the option not to skip it, and the
    order of children by score is that of their losses by ``effects``.
    """
    gains = [torch.from_numpy(-NATS_A_SPREAD / effects.spread * each) for each in effects.of_options]
    with torch.no_grad():
        rows = [row[: len(gain)] for row, gain in zip(logits.logits, gains, strict=True)]
        before = [row.max() for row in rows]
        for row, gain in zip(rows, gains, strict=True):
            row += gain
        for slot in space.slots:
            if slot.skip is not None:
                rows[slot.skip][0] += sum(rows[inner].max() - before[inner] for inner in slot.inner)
