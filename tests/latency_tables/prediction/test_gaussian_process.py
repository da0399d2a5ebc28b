"""Regression by a Gaussian process: known functions are found again, with honest deviations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from latency_tables.prediction import gaussian_process
from latency_tables.prediction.gaussian_process import GaussianProcess, matern


def points(count: int, seed: int = 0) -> np.ndarray:
    """Random points of four features, of which the last is constant."""
    found = np.random.default_rng(seed).uniform(-1, 1, (count, 4))
    found[:, 3] = 7.0
    return found


def function(x: np.ndarray) -> np.ndarray:
    """It rises with one feature, jumps at another, and does not depend on the third."""
    return 0.5 * np.sin(3 * x[:, 0]) + 0.2 * (x[:, 1] > 0)


def test_the_correlation_is_that_of_the_book() -> None:
    """Rasmussen and Williams, equation 4.17, at distances 0, 1 and 2."""
    found = matern(torch.zeros(1, 1).double(), torch.tensor([[0.0], [1.0], [2.0]]).double())
    root = math.sqrt(5)
    expected = [1.0, (1 + root + 5 / 3) * math.exp(-root), (1 + 2 * root + 20 / 3) * math.exp(-2 * root)]
    assert found[0].tolist() == pytest.approx(expected)


def test_predictions_are_those_of_another_library() -> None:
    """scikit-learn's regressor with the hyperparameters that were found here."""
    known, others = points(60), points(40, seed=1)
    process = GaussianProcess(known, function(known))
    points_NF = process.points.numpy()
    y = (torch.linalg.inv(process.inverse) @ process.weights).numpy()  # without outliers
    kernel = ConstantKernel(process.variance) * Matern(process.length_scales.numpy(), nu=2.5)
    other = GaussianProcessRegressor(kernel, alpha=process.noise, optimizer=None).fit(points_NF, y)
    wanted, deviations = other.predict((others - process.centre) / process.deviation, return_std=True)
    found, spread = process.predict(others)
    assert found == pytest.approx(wanted + process.mean, abs=1e-6)
    assert spread == pytest.approx(deviations, abs=1e-6)


def test_a_function_is_found_again() -> None:
    known, others = points(200), points(300, seed=1)
    found, spread = GaussianProcess(known, function(known)).predict(others)
    assert np.abs(found - function(others)).mean() < 0.015
    assert np.corrcoef(np.abs(found - function(others)), spread)[0, 1] > 0.3  # it knows where it knows little


def test_deviations_hold() -> None:
    noise, inside = 0.05, []
    for seed in range(8):
        known, others = points(80, seed), points(200, seed + 100)
        noisy = 0.5 * np.sin(3 * known[:, 0]) + np.random.default_rng(seed).normal(0, noise, 80)
        found, spread = GaussianProcess(known, noisy).predict(others)
        inside.append(np.abs(found - 0.5 * np.sin(3 * others[:, 0])) <= 1.2816 * spread)
    assert 0.65 <= np.mean(inside) <= 0.95  # of 80%


def test_far_away_it_returns_to_the_mean_and_says_how_little_it_knows() -> None:
    known = points(100)
    process = GaussianProcess(known, function(known))
    far = np.full((1, 4), 1e4)
    found, spread = process.predict(far)
    assert found[0] == pytest.approx(function(known).mean(), abs=0.01)
    assert spread[0] == pytest.approx(math.sqrt(float(process.variance)), rel=1e-3)


def test_one_wrong_point_changes_little_elsewhere() -> None:
    known, others = points(150), points(300, seed=1)
    targets = function(known)
    wrong = targets.copy()
    wrong[10] += 3.0
    found, _ = GaussianProcess(known, wrong).predict(others)
    assert np.abs(found - function(others)).mean() < 0.03


def test_many_points_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_process, "KEPT", 120)
    monkeypatch.setattr(gaussian_process, "AT_ONCE", 50)
    known, others = points(500), points(130, seed=1)
    process = GaussianProcess(known, function(known))
    assert len(process.points) == 120
    found, spread = process.predict(others)
    again, _ = GaussianProcess(known, function(known)).predict(others)
    assert np.array_equal(found, again)
    assert spread.shape == (130,)
    assert np.abs(found - function(others)).mean() < 0.03


@pytest.mark.parametrize("targets", [[1e6, -1e6] * 20, [0.0] * 39 + [1e9], [1e-12] * 20 + [2e-12] * 20])
def test_extreme_targets_at_one_point_have_a_prediction(targets: list[float]) -> None:
    found, spread = GaussianProcess(np.ones((40, 3)), np.array(targets)).predict(points(5)[:, :3])
    assert np.isfinite(found).all()
    assert np.isfinite(spread).all()


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_value_is_kept(count: int) -> None:
    found, _ = GaussianProcess(points(count), np.full(count, 0.3)).predict(points(count))
    assert found.tolist() == pytest.approx([0.3] * count)
