from __future__ import annotations

import random

import pytest
import torch

from dmask_mobile.records.choice import Choice
from dmask_mobile.search.loss_model import Evaluation, LossModel
from dmask_mobile.supernet.gates import GateLogits, one_hot_gates
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
    assert model.effects[first][1] - model.effects[first][0] == pytest.approx(-0.2, abs=0.01)
    assert model.effects[second][1] - model.effects[second][0] == pytest.approx(-0.1, abs=0.01)
    differences = [model.of(a.choice) - model.of(b.choice) for a, b in zip(evaluations, evaluations[8:], strict=False)]
    expected = [loss_of(a.choice) - loss_of(b.choice) for a, b in zip(evaluations, evaluations[8:], strict=False)]
    assert differences == pytest.approx(expected, abs=0.02)


def test_the_expectation_at_one_hot_gates_is_that_of_the_child(evaluations: list[Evaluation]) -> None:
    model = LossModel(SPACE, evaluations[:80])
    for evaluation in evaluations[:20]:
        gates = one_hot_gates(SPACE, evaluation.choice)
        assert float(model.expected(gates)) == pytest.approx(model.of(evaluation.choice), abs=1e-9)


def test_the_expectation_under_gates_is_the_mean_over_draws(evaluations: list[Evaluation]) -> None:
    model, logits = LossModel(SPACE, evaluations), GateLogits(SPACE)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(logits.logits, generator=generator)
    drawn = [model.of(logits.draw(generator)) for _ in range(4000)]
    mean = sum(drawn) / len(drawn)
    assert float(model.expected(logits.probabilities()).detach()) == pytest.approx(mean, abs=0.01)
