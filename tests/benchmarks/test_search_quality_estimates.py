from __future__ import annotations

import itertools

import numpy as np
import pytest
from search_quality.estimates import best_of, best_of_weights, difference, percentile, rank_correlation


def test_the_best_of_k_counts_every_subset() -> None:
    validation = [0.3, 0.9, 0.1, 0.5, 0.7]
    subsets = list(itertools.combinations(range(5), 3))
    winners = [max(subset, key=validation.__getitem__) for subset in subsets]
    expected = [winners.count(number) / len(subsets) for number in range(5)]
    assert best_of_weights(validation, 3) == pytest.approx(expected)


def test_best_of_one_is_the_mean_and_best_of_all_the_winner_by_validation() -> None:
    ours, validation, test = np.array([[0.8], [0.7]]), np.array([0.5, 0.6, 0.4]), np.array([0.70, 0.60, 0.65])
    assert best_of(ours, validation, test, 1).mean == pytest.approx(0.65)
    winner = best_of(ours, validation, test, 5)
    assert (winner.count, winner.mean, winner.low, winner.high) == (3, pytest.approx(0.60), 0.60, 0.60)
    assert winner.gain.mean == pytest.approx(0.15)


def test_the_error_of_a_paired_difference_is_that_of_the_differences() -> None:
    ours, others = np.array([[0.70, 0.72], [0.80, 0.82], [0.60, 0.62]]), np.array([[0.70], [0.80], [0.57]])
    found = difference(ours, others, paired=True)
    differences = np.array([0.01, 0.01, 0.04])
    assert found.mean == pytest.approx(differences.mean())
    assert found.standard_error == pytest.approx(differences.std(ddof=1) / 3**0.5)


def test_the_errors_of_independent_sides_add_up() -> None:
    ours, others = np.array([[0.70], [0.74]]), np.array([[0.60, 0.64]])  # two searches; one network, trained twice
    assert difference(ours, others).standard_error == pytest.approx((0.0004 + 0.0004) ** 0.5)
    assert difference(ours, others[:, :1]).standard_error == pytest.approx((0.0004 + 0.0008) ** 0.5)


def test_the_bootstrap_interval_is_that_of_the_normal_distribution_for_many_units() -> None:
    ours = np.random.default_rng(0).normal(0.7, 0.02, (400, 1))
    found = difference(ours, np.full((1, 2), 0.5))
    half = 1.96 * 0.02 / 400**0.5
    assert found.high - found.mean == pytest.approx(half, rel=0.15)
    assert found.mean - found.low == pytest.approx(half, rel=0.15)


def test_percentile_and_rank_correlation() -> None:
    assert percentile(np.array([[0.5], [0.9]]), np.array([0.4, 0.5, 0.6, 0.7])) == pytest.approx((37.5 + 100) / 2)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)  # five pairs agree, one does not
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
