"""Regression by a Gaussian process: smooth functions of many features, from few noisy points.

A Matern kernel (nu = 5/2) has a length scale for each feature. Length scales, variance and noise have the greatest
posterior density (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25, 2.26, 4.17,
5.8 and 5.12). scikit-learn's regressor took seconds to minutes for 30 features, this one takes about a second, because
the gradient of the density comes from PyTorch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FITTED, KEPT = 400, 2000  # points: at most so many for the hyperparameters, and for the predictions
LENGTH_SCALE, NOISE, WIDE = 3.0, 1e-3, 1.5  # medians of the prior densities, in deviations and variance; their widths
LEAST_NOISE, LEAST_VARIANCE = 1e-6, 1e-6
FARTHEST = 4.0  # deviations from the medians
LARGE = 3.0  # standard deviations from what other points predict, beyond which a point is not believed
ROUNDS = 3  # of finding outliers
MAX_STEPS = 60
AT_ONCE = 4096  # points that are predicted together


class GaussianProcess:
    """The function that ``targets`` are noisy values of.

    Args:
        features: (N, F).
        targets: (N,).
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray) -> None:
        order = np.random.default_rng(0).permutation(len(targets))[:KEPT]
        features, targets = features[order].astype(float), targets[order].astype(float)
        self.centre, self.deviation = features.mean(0), features.std(0)
        self.deviation[self.deviation < 1e-6] = 1.0
        self.mean = float(targets.mean())
        self.points = self._standardized(features)
        y = torch.from_numpy(targets - self.mean)
        used = y
        for _ in range(ROUNDS):
            self.length_scales, self.variance, self.noise = _fitted(self.points[:FITTED], used[:FITTED])
            covariance = self._kernel(self.points) + self.noise * torch.eye(len(y), dtype=y.dtype)
            self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
            used = _without_outliers(y, used, self.inverse)
        self.weights = self.inverse @ used

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,) of the function at points (M, F), without noise."""
        parts = [self._predict(part) for part in torch.split(self._standardized(features.astype(float)), AT_ONCE)]
        mean, variance = (torch.cat(each) for each in zip(*parts, strict=True))
        return mean.numpy(), variance.clamp(min=0.0).sqrt().numpy()

    def _predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        kernel = self._kernel(points)
        known = ((kernel @ self.inverse) * kernel).sum(1)
        return kernel @ self.weights + self.mean, self.variance - known

    def _standardized(self, features: np.ndarray) -> Tensor:
        return torch.from_numpy((features - self.centre) / self.deviation)

    def _kernel(self, points: Tensor) -> Tensor:
        return self.variance * matern(points / self.length_scales, self.points / self.length_scales)


def matern(a_MF: Tensor, b_NF: Tensor) -> Tensor:
    """The correlations (M, N) of a Matern process with nu = 5/2 and length scales of 1."""
    distance = math.sqrt(5) * torch.cdist(a_MF, b_NF)
    return (1 + distance + distance.square() / 3) * torch.exp(-distance)


def _fitted(points_NF: Tensor, y: Tensor) -> tuple[Tensor, float, float]:
    """Length scales (F,), variance and noise with the greatest posterior density."""
    count, num_features = points_NF.shape
    medians = torch.full((num_features + 2,), math.log(LENGTH_SCALE), dtype=y.dtype)
    medians[-2], medians[-1] = math.log(float(y.var()) + LEAST_VARIANCE) if count > 1 else 0.0, math.log(NOISE)
    deviations = torch.zeros_like(medians).requires_grad_()  # of the logarithms from the medians
    eye = torch.eye(count, dtype=y.dtype)

    def loss() -> Tensor:
        optimizer.zero_grad()
        scales, variance, noise = _natural(medians, deviations)
        covariance = variance * matern(points_NF / scales, points_NF / scales) + noise * eye
        cholesky = torch.linalg.cholesky(covariance)
        weights = torch.cholesky_solve(y[:, None], cholesky)[:, 0]
        unlikely = 0.5 * (y @ weights) + cholesky.diagonal().log().sum()
        found: Tensor = unlikely + 0.5 * deviations.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer = torch.optim.LBFGS(
        [deviations], max_iter=MAX_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-4 * count
    )
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scales, variance, noise = _natural(medians, deviations.detach())
    return scales, float(variance), float(noise)


def _natural(medians: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Length scales, variance and noise, near enough to the medians for a matrix that can be decomposed."""
    logs = medians + WIDE * deviations.clamp(-FARTHEST, FARTHEST)
    variance = logs[-2].exp() + LEAST_VARIANCE
    return logs[:-2].exp(), variance, logs[-1].exp() + LEAST_NOISE * (1 + variance)


def _without_outliers(y: Tensor, used: Tensor, inverse: Tensor) -> Tensor:
    """The targets, those far from what the other points predict moved nearer (winsorized); ``used``: those so far."""
    precisions = inverse.diagonal()
    left_out = y - used + (inverse @ used) / precisions
    in_deviations = left_out * precisions.sqrt()
    most = LARGE * 1.4826 * in_deviations.abs().median() / precisions.sqrt()
    return y - left_out + left_out.clamp(-most, most)
