from __future__ import annotations

import random
import signal

import numpy as np
import pytest

from dmask_mobile.api import cost_model, load_space
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget, derive_within
from dmask_mobile.search.derive import FLOOR
from dmask_mobile.search.loss_model import Effects, Evaluation, Trial
from dmask_mobile.search.near_budget import tightest_share
from dmask_mobile.search.proposals import Proposals
from dmask_mobile.search.scaling import scaled_within
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.single_path import SinglePath
from tests.dmask_mobile.small import SPACE, few_images

TRIALS = 8


def single_path(space: SearchSpace, *costs: str) -> SinglePath:
    """A search of which 50 random children near the budgets were evaluated, all with the same loss."""
    budgets = []
    for name in costs or ("macs",):
        cost = cost_model(name, []).on(space)
        low, high = cost.reachable()
        budgets.append(Budget(cost, (low * high) ** 0.5))
    searcher = Searcher(space, few_images(), budgets, SearchSettings(epochs=1, warmup=0, trials=TRIALS))
    gates = searcher.gate_training
    assert isinstance(gates, SinglePath)
    searcher.state.evaluations += [Evaluation(0, 2.0, gates.draw()) for _ in range(50)]
    return gates


def loss_by(effects: Effects, choice: Choice) -> float:
    inactive = {inner for slot in SPACE.slots if slot.skip is not None and choice[slot.skip] for inner in slot.inner}
    return float(sum(e[choice[d]] for d, e in enumerate(effects.of_options) if d not in inactive))


@pytest.mark.parametrize("costs", [("macs",), ("macs", "peak_activation_bytes")])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_child_within_the_budget_has_a_lower_loss_by_the_effects(seed: int, costs: tuple[str, ...]) -> None:
    """Whatever the blocks that are not skipped add to the loss; a second budget is of a peak."""
    generator = np.random.default_rng(seed)
    rows = [generator.normal(generator.choice([-0.5, 0.5]), 1.0, len(d.options)) for d in SPACE.decisions]
    effects = Effects(tuple(rows), 1.0)
    gates = single_path(SPACE, *costs)
    best, drawn = gates.best(effects), random.Random(seed)

    def fits(choice: Choice) -> bool:
        macs, *peaks = (budget.cost.cost(choice) / budget.limit for budget in gates.parts.budgets)
        return FLOOR <= macs <= 1 and all(peak <= 1 for peak in peaks)

    assert fits(best)
    others = list(filter(fits, (SPACE.sample(drawn) for _ in range(3000))))
    assert len(others) > 50
    assert loss_by(effects, best) <= min(loss_by(effects, choice) for choice in others) + 1e-9


def test_trials_begin_at_the_corners_go_on_with_the_scaled_child_and_end_at_the_best_one() -> None:
    """Where shallow children are better, the last trials are of shallow children."""
    space = load_space("mobilenet_small").with_classes(10)
    gates = single_path(space)
    budgets, state, proposals = gates.parts.budgets, gates.parts.state, Proposals(gates.parts, gates)
    skips = [slot.skip for slot in space.slots if slot.skip is not None]
    skipped = []
    for _ in range(TRIALS):
        choice = proposals.next()
        assert proposals.next() == choice
        skipped.append(sum(choice[skip] for skip in skips))
        state.trials.append(Trial(2.0 - 0.1 * skipped[-1], 0.5, choice))
    corners = skipped[: TRIALS // 2]
    assert max(corners) - min(corners) >= 3  # of 6; of random children nearly all have one or two
    assert state.trials[TRIALS // 2].choice == scaled_within(space, budgets)
    assert skipped[-1] == max(skipped)
    assert all(FLOOR <= tightest_share(budgets, trial.choice) <= 1 for trial in state.trials)
    assert len({trial.choice for trial in state.trials}) == TRIALS


def test_with_several_budgets_trials_are_within_all_of_them_and_differ() -> None:
    """Deriving the best child within two sums of a large space would take minutes for each trial."""
    space = load_space("mobilenet_small").with_classes(10)
    gates = single_path(space, "macs", "params")
    state, proposals = gates.parts.state, Proposals(gates.parts, gates)
    skips = [slot.skip for slot in space.slots if slot.skip is not None]
    for _ in range(TRIALS):
        choice = proposals.next()
        state.trials.append(Trial(2.0 - 0.1 * sum(choice[skip] for skip in skips), 0.5, choice))
        assert tightest_share(gates.parts.budgets, choice) <= 1
    losses = [trial.loss for trial in state.trials]
    assert min(losses[TRIALS // 2 :]) < np.mean(losses[: TRIALS // 2])
    assert len({trial.choice for trial in state.trials}) == TRIALS


def test_a_signal_stops_the_choice_of_children_between_two_derivations() -> None:
    """In a large space the derivations before the first trial take minutes."""
    gates, told = single_path(SPACE), []

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        told.append((stage, done))
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    proposals = Proposals(gates.parts, gates, tell)
    with pytest.raises(StoppedError), stop_signals():
        proposals.next()
    assert told == [("corner", 1), ("corner", 2), ("corner", 3)]


def test_a_trained_child_is_taken_if_the_model_is_wrong_about_better_ones() -> None:
    gates = single_path(SPACE)
    state, proposals = gates.parts.state, Proposals(gates.parts, gates)
    good = proposals.next()
    state.trials.append(Trial(1.0, 0.5, good))
    for _ in range(12):
        model = gates.model(state.evaluations, state.trials)
        assert model is not None
        choice = proposals.next() if len(state.trials) < TRIALS // 2 else gates.best(model.expected)
        state.trials.append(Trial(1.0 if choice == good else 2.0, 0.5, choice))
    gates.finish_epoch()
    assert derive_within(gates.parts.budgets, state.logits.as_arrays()).choice == good
    cost, limit = gates.parts.budgets[0]
    assert float(cost.expected(state.logits.probabilities()).detach()) == pytest.approx(limit, rel=0.03)


@pytest.mark.parametrize("costs", [("macs",), ("macs", "peak_activation_bytes")])
@pytest.mark.parametrize("seed", range(5))
def test_the_child_of_the_decided_gates_is_the_best_one_by_the_model(seed: int, costs: tuple[str, ...]) -> None:
    """Sharpened gates alone may lead to another one, because their expected cost is kept at the budget."""
    gates, generator = single_path(load_space("mobilenet_small"), *costs), np.random.default_rng(seed)
    state = gates.parts.state
    state.evaluations[:] = [each._replace(loss=float(generator.normal(2, 0.1))) for each in state.evaluations]
    gates.finish_epoch()
    model = gates.model(state.evaluations, [])
    assert model is not None
    best = gates.best(model.expected)
    assert derive_within(gates.parts.budgets, state.logits.as_arrays()).choice == best
    cost, limit = gates.parts.budgets[0]
    assert float(cost.expected(state.logits.probabilities()).detach()) == pytest.approx(limit, rel=0.03)
