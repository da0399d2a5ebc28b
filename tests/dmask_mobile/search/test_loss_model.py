from __future__ import annotations

import math
import random

import numpy as np
import pytest

from dmask_mobile.costs.counts import Macs
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.features import Features, capacity_of
from dmask_mobile.search.loss_model import (
    CAPACITY,
    NOISE,
    OWN,
    PARTICULAR,
    RESOLUTION,
    SHARED,
    SUPERNET,
    Effects,
    Evaluation,
    FromTrials,
    LossModel,
    Trial,
    gains_of_whole_trainings,
    weight_of_trials,
)
from tests.dmask_mobile.small import SPACE

SKIP = next(index for index, decision in enumerate(SPACE.decisions) if decision.kind == "skip")
KERNELS = [index for index, decision in enumerate(SPACE.decisions) if decision.kind == "kernel"]
INSIDE = next(slot.kernel for slot in SPACE.slots if slot.skip == SKIP)


def loss_of(choice: Choice) -> float:
    """A larger kernel is worth 0.2 in the first block, and in the second one 0.1 unless that is skipped."""
    second = 0.0 if choice[SKIP] else -0.1 * choice[INSIDE or 0]
    return 2.0 - 0.2 * choice[KERNELS[0]] + second + 0.3 * choice[SKIP]


@pytest.fixture(scope="module")
def evaluations() -> list[Evaluation]:
    generator = random.Random(0)
    choices = [SPACE.sample(generator) for _ in range(4000)]
    return [Evaluation(n // 8, loss_of(c) + 0.5 * (n // 8 % 3), c) for n, c in enumerate(choices)]


def test_it_finds_the_effects_whatever_the_images_of_a_group_are(evaluations: list[Evaluation]) -> None:
    model = LossModel(SPACE, evaluations)
    first, second = KERNELS[0], INSIDE or 0
    assert model.expected.of_options[first][1] - model.expected.of_options[first][0] == pytest.approx(-0.2, abs=0.01)
    assert model.expected.of_options[second][1] - model.expected.of_options[second][0] == pytest.approx(-0.1, abs=0.01)
    differences = [model.of(a.choice) - model.of(b.choice) for a, b in zip(evaluations, evaluations[8:], strict=False)]
    expected = [loss_of(a.choice) - loss_of(b.choice) for a, b in zip(evaluations, evaluations[8:], strict=False)]
    assert differences == pytest.approx(expected, abs=0.02)


def trials_of(seed: int, count: int) -> list[Trial]:
    generator = random.Random(seed)
    return [Trial(loss_of(choice), 0.5, choice) for choice in (SPACE.sample(generator) for _ in range(count))]


def test_a_few_trials_find_what_the_supernet_does_not_show(evaluations: list[Evaluation]) -> None:
    blind = [evaluation._replace(loss=2.0) for evaluation in evaluations[:400]]
    unseen = [evaluation.choice for evaluation in evaluations[400:500]]
    truth = [loss_of(choice) for choice in unseen]
    for seed in range(5):
        model = LossModel(SPACE, blind, trials_of(seed, 10))
        assert np.corrcoef([model.of(choice) for choice in unseen], truth)[0, 1] > 0.5


def test_trials_outweigh_a_supernet_that_contradicts_them(evaluations: list[Evaluation]) -> None:
    wrong = [evaluation._replace(loss=-evaluation.loss) for evaluation in evaluations[:400]]
    model = LossModel(SPACE, wrong, trials_of(0, 30))
    unseen = [evaluation.choice for evaluation in evaluations[400:500]]
    assert np.corrcoef([model.of(choice) for choice in unseen], [loss_of(choice) for choice in unseen])[0, 1] > 0.5


def fitted(weight: float = 1.0) -> tuple[FromTrials, np.ndarray, np.ndarray, np.ndarray]:
    """Trials of six children with five options, their features, losses and two directions with a spread of 1."""
    generator = np.random.default_rng(0)
    features_KF, losses_K = generator.integers(0, 2, (6, 5)).astype(float), generator.normal(3, 0.2, 6)
    directions_DF, spreads_D = generator.normal(size=(2, 5)), np.array([0.5, 2.0])
    trials = FromTrials(directions_DF, spreads_D)
    trials.fit(features_KF, losses_K, weight)
    return trials, features_KF, losses_K, directions_DF / spreads_D[:, None]


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_effects_are_the_posterior_mean(weight: float) -> None:
    """The same as the least squares of all observations, each divided by its standard deviation."""
    trials, features_KF, losses_K, unit_DF = fitted(weight)
    scale = losses_K.std() / weight
    # Effects are SUPERNET * unit[0] + OWN * own + SHARED * unit.T @ shared, and a loss adds PARTICULAR * particular;
    # own, shared and particular are standard normal.
    parts_FP = np.concatenate([OWN * np.eye(5), SHARED * unit_DF.T, np.zeros((5, 6))], axis=1)
    particular_KP = np.concatenate([np.zeros((6, 7)), PARTICULAR * np.eye(6)], axis=1)
    centred_KF = features_KF - features_KF.mean(0)
    target_K = (losses_K - losses_K.mean()) / scale - centred_KF @ (SUPERNET * unit_DF[0])
    rows = np.concatenate([(centred_KF @ parts_FP + particular_KP) / NOISE, np.eye(13)])
    parts_P = np.linalg.lstsq(rows, np.concatenate([target_K / NOISE, np.zeros(13)]))[0]
    effects_F, particular_K = trials.expected()
    expected_F = scale * (SUPERNET * unit_DF[0] + parts_FP @ parts_P)
    assert effects_F.tolist() == pytest.approx(expected_F.tolist(), abs=1e-9)
    assert particular_K.tolist() == pytest.approx((scale * particular_KP @ parts_P).tolist(), abs=1e-9)


@pytest.mark.parametrize(("share", "weight"), [(-0.1, 0.05), (0.0, 0.05), (0.01, 0.2), (0.05, 1.0), (0.7, 1.0)])
def test_trials_count_by_what_they_have_learned(share: float, weight: float) -> None:
    """The share of the loss of guessing, ln K, that is gone; in full from 5% on."""
    assert weight_of_trials((1 - share) * math.log(36), 36) == pytest.approx(weight)


@pytest.mark.parametrize("seed", range(10))
def test_trials_no_better_than_guessing_do_not_outweigh_what_whole_trainings_gain(
    seed: int, evaluations: list[Evaluation]
) -> None:
    """Their losses differ by chance alone."""
    generator = np.random.default_rng(seed)
    guessing = math.log(SPACE.classes)
    trials = [trial._replace(loss=guessing + float(generator.normal(0, 0.03))) for trial in trials_of(seed, 8)]
    model = LossModel(SPACE, [evaluation._replace(loss=2.0) for evaluation in evaluations[:400]], trials)
    gains_F = gains_of_whole_trainings(Features(SPACE))
    unseen = [evaluation.choice for evaluation in evaluations[400:600]]
    gained = [float(Features(SPACE).of(choice) @ gains_F) for choice in unseen]
    assert np.corrcoef([-model.of(choice) for choice in unseen], gained)[0, 1] > 0.95


def test_draws_have_the_mean_and_the_spread_of_the_posterior_along_the_directions() -> None:
    """The spread: that of a linear regression of two weights, if single options had no effects of their own."""
    trials, _, losses_K, unit_DF = fitted()
    generator = np.random.default_rng(1)
    drawn = np.array([trials.drawn(generator) for _ in range(20_000)])
    assert drawn.mean(0) == pytest.approx(trials.expected()[0], abs=0.01)
    prior = FromTrials(unit_DF, np.ones(2))
    assert np.array([prior.drawn(generator) for _ in range(20_000)]).std(0) == pytest.approx(
        SHARED * np.sqrt((unit_DF**2).sum(0)), rel=0.03
    )
    assert (drawn.std(0) < losses_K.std() * SHARED * np.sqrt((unit_DF**2).sum(0))).all()


def test_another_child_tells_more_than_the_same_one_again(evaluations: list[Evaluation]) -> None:
    model, (first, second) = LossModel(SPACE, evaluations[:100]), [e.choice for e in evaluations[:2]]
    assert model.most_informative([first, second], [first]) == second
    assert model.most_informative([first, second], [second]) == first


def test_corners_are_pairs_of_opposites(evaluations: list[Evaluation]) -> None:
    """The best option inside a block has no effect, so that only the skips decide the number of blocks."""
    corners = LossModel(SPACE, evaluations[:100]).corners(np.random.default_rng(0), 4)
    assert len(corners) == 4
    for one, other in zip(corners[::2], corners[1::2], strict=True):
        assert one.of_options[SKIP].tolist() == pytest.approx((-other.of_options[SKIP]).tolist())
        assert {float(effects.of_options[INSIDE or 0].min()) for effects in (one, other)} == {0.0}
        assert np.argmin(one.of_options[KERNELS[0]]) != np.argmin(other.of_options[KERNELS[0]])


def test_the_best_trial_is_that_of_the_lowest_loss_unless_its_relatives_are_bad(evaluations: list[Evaluation]) -> None:
    blind = [evaluation._replace(loss=2.0) for evaluation in evaluations[:400]]
    trials = trials_of(0, 10)
    best = LossModel(SPACE, blind, trials).best_trial
    assert best is not None
    assert best[0] == min(trials, key=lambda trial: trial.loss).choice
    features = Features(SPACE)
    worst = max(trials, key=lambda trial: (trial.loss, -features.of(trial.choice) @ capacity_of(SPACE)))
    lucky = [*trials, *(Trial(worst.loss, 0.5, worst.choice) for _ in range(4))]
    lucky.append(Trial(min(trial.loss for trial in trials) - 0.01, 0.5, worst.choice))
    best = LossModel(SPACE, blind, lucky).best_trial
    assert best is not None
    assert best[0] != worst.choice
    assert LossModel(SPACE, blind).best_trial is None


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_trials_say_nothing(count: int, evaluations: list[Evaluation]) -> None:
    with_trials = LossModel(SPACE, evaluations[:80], trials_of(0, count))
    without = LossModel(SPACE, evaluations[:80])
    assert all(
        np.array_equal(a, b) for a, b in zip(with_trials.expected.of_options, without.expected.of_options, strict=True)
    )


def test_trials_that_are_alike_leave_no_effect(evaluations: list[Evaluation]) -> None:
    alike = [trial._replace(loss=1.5) for trial in trials_of(0, 6)]
    effects = np.concatenate(LossModel(SPACE, evaluations[:80], alike).expected.of_options)
    assert np.abs(effects).max() < 1e-4


def test_one_evaluation_leaves_a_spread_among_trials(evaluations: list[Evaluation]) -> None:
    """Few images allow one evaluation only; gates divide by the spread."""
    model = LossModel(SPACE, evaluations[:1], trials_of(0, 5))
    assert model.expected.spread > 0.01
    assert np.abs(np.concatenate(model.expected.of_options)).max() < 10 * model.expected.spread


THREE_RESOLUTIONS = SearchSpace.model_validate(SPACE.model_dump() | {"input": {"resolutions": [8, 12, 16]}})
CLOSE_RESOLUTIONS = SearchSpace.model_validate(SPACE.model_dump() | {"input": {"resolutions": [14, 16]}})


def at(resolution: int, choice: Choice) -> Choice:
    return Choice(indices=(resolution, *choice.indices[1:]))


def test_resolution_and_capacity_are_worth_more_than_short_trainings_show(evaluations: list[Evaluation]) -> None:
    """Each child is tried with a loss of 1.9 and with one of 2.1, so that the trials themselves show no effect."""
    blind = [evaluation._replace(loss=2.0) for evaluation in evaluations[:400]]
    tried = [at(resolution, trial.choice) for resolution in (0, 2) for trial in trials_of(0, 10)]
    trials = [Trial(loss, 0.5, choice) for choice in tried for loss in (1.9, 2.1)]
    model = LossModel(THREE_RESOLUTIONS, blind, trials)
    gains_F = CAPACITY * capacity_of(THREE_RESOLUTIONS)
    gains_F[:3] += RESOLUTION * np.log2([8, 12, 16]) - RESOLUTION * np.log2([8, 12, 16]).mean()
    for effects in (model.expected, mean_of_draws(model, 2000)):
        assert np.concatenate(effects.of_options) == pytest.approx(-0.1 * gains_F, abs=0.01)
    assert model.best_trial is not None
    assert model.best_trial[0][0] == 2


def mean_of_draws(model: LossModel, count: int) -> Effects:
    generator = np.random.default_rng(0)
    drawn = [model.drawn(generator).of_options for _ in range(count)]
    return Effects(tuple(np.mean(each, 0) for each in zip(*drawn, strict=True)), 1.0)


def test_a_small_resolution_is_taken_where_it_is_clearly_better(evaluations: list[Evaluation]) -> None:
    """Among children with about the same multiply-adds, as budgets make them."""
    blind = [evaluation._replace(loss=2.0) for evaluation in evaluations[:400]]
    macs = Macs().on(CLOSE_RESOLUTIONS)
    drawn = [at(resolution, trial.choice) for resolution in (0, 1) for trial in trials_of(0, 100)]
    alike = [choice for choice in drawn if 0.9 < macs.cost(choice) / np.median([macs.cost(c) for c in drawn]) < 1.1]
    trials = [Trial(loss_of(choice) + choice[0], 0.5, choice) for choice in alike]
    model = LossModel(CLOSE_RESOLUTIONS, blind, trials)
    assert {trial.choice[0] for trial in trials} == {0, 1}
    assert model.best_trial is not None
    assert model.best_trial[0][0] == 0
    assert model.expected.of_options[0].argmin() == 0
