"""The best chain by mixed-integer linear programming (HiGHS); used for problems with too many labels.

Labels (`search.derive`) are fast because most are dominated or cannot beat the best child known. If many scores are
exactly equal, few labels can be dropped, and their number has no useful limit. Then the same problem is solved as a
flow of 1 through the chain of widths, one binary variable for each (step, input width, output width, variant).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

TOLERANCE = 2e-6  # of the bounds: HiGHS lets a row miss its bounds by 1e-6

Path = list[tuple[int, int]]


def best_path(costs: Sequence[np.ndarray], scores: Sequence[np.ndarray], low: float, high: float) -> Path | None:
    """The chain with the highest score whose cost lies in ``low`` to ``high``, as (output width, variant) of each step.

    Exact, except for chains within 2 millionths of a bound and for scores that differ by less than 1e-6.

    Args:
        costs: for each step (I, J, M) over input widths, output widths and variants.
        scores: of the same shapes; -inf where there is no such transition.
        low: the least cost; may be -inf.
        high: the highest cost; may be inf.
    """
    path = _solve(costs, scores, low, high)
    if path is None or low <= _cost(costs, path) <= high:
        return path
    scale = TOLERANCE * max(abs(bound) for bound in (low, high) if np.isfinite(bound))
    path = _solve(costs, scores, low + scale, high - scale)
    return path if path is not None and low <= _cost(costs, path) <= high else None


def _solve(costs: Sequence[np.ndarray], scores: Sequence[np.ndarray], low: float, high: float) -> Path | None:
    # Of equal transitions one is enough. This is what makes problems with tied scores easy.
    arcs = [_distinct(c, s) for c, s in zip(costs, scores, strict=True)]
    places = np.concatenate([np.full(len(part), step) for step, part in enumerate(arcs)])
    i, j, m = np.concatenate(arcs).T
    cost = np.array([costs[k][at] for k, at in zip(places, zip(i, j, m, strict=True), strict=True)])
    score = np.array([scores[k][at] for k, at in zip(places, zip(i, j, m, strict=True), strict=True)])
    widths = [*(c.shape[0] for c in costs), costs[-1].shape[1]]
    starts = np.concatenate(([0], np.cumsum(widths)))  # positions of the nodes (step, width) in the rows
    count = len(cost)
    leaves, enters = starts[places] + i, starts[places + 1] + j
    ends = np.arange(starts[-2], starts[-1])
    flow = csr_array(
        (np.repeat([1.0, -1.0], count), (np.concatenate((leaves, enters)), np.tile(np.arange(count), 2))),
        shape=(starts[-1], count),
    )
    balance = np.zeros(starts[-1])
    balance[0] = 1.0
    lowest, highest = balance.copy(), balance.copy()
    lowest[ends] = -1.0
    highest[ends] = 0.0
    unit = max(abs(bound) for bound in (low, high) if np.isfinite(bound)) or 1.0
    found = milp(
        -score,
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(flow, lowest, highest),
            LinearConstraint(csr_array(cost[None] / unit), low / unit, high / unit),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    chosen = np.flatnonzero(found.x > 0.5)
    by_step = {int(places[index]): (int(j[index]), int(m[index])) for index in chosen}
    return [by_step[step] for step in range(len(costs))]


def _distinct(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(input width, output width, variant) of every transition (N, 3), one of each set with equal cost and score."""
    found = []
    for i, j in itertools.product(*map(range, costs.shape[:2])):
        variants = np.flatnonzero(np.isfinite(scores[i, j]))
        pairs = np.stack((costs[i, j, variants], scores[i, j, variants]), 1)
        found += [(i, j, int(variants[first])) for first in np.unique(pairs, axis=0, return_index=True)[1]]
    return np.array(found, int).reshape(-1, 3)


def _cost(costs: Sequence[np.ndarray], path: Path) -> float:
    width, total = 0, 0.0
    for values, (j, m) in zip(costs, path, strict=True):
        total += float(values[width, j, m])
        width = j
    return total
