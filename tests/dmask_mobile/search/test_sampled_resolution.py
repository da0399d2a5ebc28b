"""The sampled resolution mode: an unbiased gradient that finds the best option."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmask_mobile.costs.counts import Macs
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.sampled_resolution import SampledResolution
from dmask_mobile.search.search import Searcher, SearchResult
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.supernet.gates import GateLogits
from tests.dmask_mobile.small import SPACE, few_images

SEVERAL = SearchSpace.model_validate({**SPACE.model_dump(), "input": {"resolutions": [8, 12, 16]}})


def random_logits(seed: int) -> GateLogits:
    logits = GateLogits(SEVERAL).double()
    with torch.no_grad():
        logits.logits.normal_(generator=torch.Generator().manual_seed(seed))
    return logits


def test_the_mean_gradient_is_that_of_the_expected_loss() -> None:
    """Over all draws weighted by their probability: sum_r p_r grad = grad of sum_r p_r CE_r, whatever the baseline."""
    logits, of_resolution = random_logits(0), torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    (exact,) = torch.autograd.grad((logits.probabilities()[0] * of_resolution).sum(), logits.logits)
    mean = torch.zeros_like(exact)
    for index, probability in enumerate(logits.probabilities()[0].detach()):
        sampled = SampledResolution()
        sampled.baseline = 7.5
        loss = sampled.with_score(of_resolution[index], float(of_resolution[index]), logits, index)
        assert loss.item() == of_resolution[index].item()
        (gradient,) = torch.autograd.grad(loss, logits.logits)
        mean += probability * gradient
    torch.testing.assert_close(mean, exact)


def test_draws_follow_the_probabilities_and_leave_the_other_gates_alone() -> None:
    logits, generator = random_logits(1), torch.Generator().manual_seed(0)
    gates = logits.sample(1.0, generator)
    counts = torch.zeros(3, dtype=torch.float64)
    for _ in range(3000):
        drawn, index = SampledResolution().draw(gates, logits, generator)
        counts[index] += 1
        assert drawn[0].tolist() == [float(i == index) for i in range(3)]
        assert drawn[1:] == gates[1:]
    torch.testing.assert_close(counts / 3000, logits.probabilities()[0].detach(), rtol=0, atol=0.03)


@pytest.mark.parametrize("seed", range(16))
def test_it_finds_the_best_of_three_noisy_options(seed: int) -> None:
    """16 of 16: losses that differ by less than their noise, the best one anywhere."""
    generator = torch.Generator().manual_seed(seed)
    best = seed % 3
    losses = torch.full((3,), 1.0)
    losses[best] = 0.9
    logits, sampled = GateLogits(SEVERAL), SampledResolution()
    optimizer = torch.optim.Adam(logits.parameters(), lr=0.05, betas=(0.5, 0.999))
    for _ in range(400):
        _, index = sampled.draw(logits.probabilities(), logits, generator)
        noisy = losses[index] + 0.1 * torch.randn((), generator=generator)
        loss = sampled.with_score(noisy, float(noisy), logits, index)
        (logits.logits.grad,) = torch.autograd.grad(loss, [logits.logits])
        optimizer.step()
    assert int(logits.probabilities()[0].argmax()) == best


def search_counting_passes(settings: SearchSettings, folder: Path) -> tuple[SearchResult, float, list[int]]:
    """A search over three resolutions: its result, its budget, the resolution of every pass over the trunk."""
    cost = Macs().on(SEVERAL)
    low, high = cost.reachable()
    budget = low + 0.4 * (high - low)
    search = Searcher(SEVERAL, few_images(), [Budget(cost, budget)], settings)
    passes: list[int] = []
    original = search.supernet._pooled_features
    search.supernet._pooled_features = lambda x, gates: passes.append(x.shape[-1]) or original(x, gates)
    return search.run(folder / "s.pt"), budget, passes


@pytest.mark.slow
def test_a_sampled_search_lands_with_one_pass_a_step(tmp_path: Path) -> None:
    settings = SearchSettings(method="dmasking", epochs=8, warmup=0.25, batch_size=64, min_gate_steps=500)
    found, budget, passes = search_counting_passes(settings, tmp_path)
    assert found.expected[0] == pytest.approx(budget, rel=0.03)
    assert found.entropy < 0.2
    assert len(passes) == 7 * 8 + 6 * 84  # 480 // 64 batches in 8 epochs; 500 gate steps over 6 epochs, 1 a pass
    assert set(passes) == {8, 12, 16}


@pytest.mark.slow
def test_an_exact_search_runs_every_resolution_in_every_step(tmp_path: Path) -> None:
    settings = SearchSettings(
        method="dmasking", epochs=1, warmup=0.0, batch_size=64, min_gate_steps=1, resolution_mode="exact"
    )
    _, _, passes = search_counting_passes(settings, tmp_path)
    assert passes == [8, 12, 16] * (7 + 1)
