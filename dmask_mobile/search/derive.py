"""The best child within a budget: an exact constrained shortest path over the chain of blocks.

Taking the argmax of every gate would ignore the budget. Here the score of a child is the sum of ``log(p / max p)`` over
its *active* gates, with ``p = softmax(logits)``. It is 0 for the argmax child; the gates inside a skipped block do not
count. The child with the highest score and ``0.95 budget <= cost <= budget`` is found exactly. The cost is a sum of
terms that depend on neighbouring choices, so partial chains that end at the same width can be compared by their labels
(cost, score). Labels are dropped when they cannot end within the bounds, when a Lagrangian bound shows that they cannot
beat the best child known, and when another label dominates them. Dominance depends on the bounds: with only the upper
bound, a cheaper and better label dominates; with only the lower bound, a more expensive and better label does. Both of
these relaxed problems are solved first; if a solution meets both bounds, it is the answer. If so many scores are tied
that more than `MAX_LABELS` labels would be needed, `search.derive_milp` solves the same problem.

Array legend: I input widths, J output widths, M variants of a block (expansion, kernel, squeeze-excite, skip).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.memory import SpacePeak
from dmask_mobile.costs.model import SpaceCost
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.derive_milp import best_path

FLOOR = 0.95  # of the budget
MULTIPLIER_STEPS = 60
MAX_LABELS = 2_000_000  # in one step, before any is dropped; decided gates need a few thousand


class Derived(NamedTuple):
    """A derived child, its score, the gap to the best possible score, and whether the lower bound was dropped."""

    choice: Choice
    score: float
    gap: float
    lower_bound_relaxed: bool


class PeakLimit(NamedTuple):
    """A limit on the highest cost of any block; blocks above it are excluded before costs are added up."""

    cost: SpacePeak
    limit: float


class _Step(NamedTuple):
    """One slot at one resolution; -inf in ``scores`` where a transition does not exist (tied widths)."""

    costs_IJM: np.ndarray
    scores_IJM: np.ndarray
    variants: tuple[dict[int, int], ...]  # the option index of each decision inside the block, for each of M


class _Labels(NamedTuple):
    """Partial chains that end at one width: arrays of equal length; ``parent`` = (input width, label), ``variant``."""

    cost: np.ndarray
    score: np.ndarray
    width: np.ndarray
    parent: np.ndarray
    variant: np.ndarray

    def take(self, chosen: np.ndarray) -> _Labels:
        return _Labels(*(array[chosen] for array in self))


class _Bound(NamedTuple):
    """Bounds for one multiplier; ``rest[k][i]``: the best ``score - multiplier * cost`` after slot k from width i."""

    multiplier: float
    anchor: float
    rest: list[np.ndarray]

    def of(self, labels: _Labels, slot: int, width: int) -> np.ndarray:
        bound: np.ndarray = labels.score + self.rest[slot][width] + self.multiplier * (self.anchor - labels.cost)
        return bound


def log_scores(probabilities: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``log(p / max p)`` of each option of each decision; options with no probability get a very low score."""
    return [np.log(np.maximum(p, 1e-300)) - np.log(np.max(p)) for p in (np.asarray(p, float) for p in probabilities)]


def score_of(space: SearchSpace, scores: Sequence[np.ndarray], choice: Choice) -> float:
    """The score of one child: the sum over its active decisions."""
    inactive: set[int] = set()
    for slot in space.slots:
        if slot.skip is not None and choice[slot.skip]:
            inactive.update(slot.inner)
    return float(sum(scores[d][choice[d]] for d in range(len(scores)) if d not in inactive))


def derive(
    cost: ChainCost,
    probabilities: Sequence[np.ndarray],
    budget: float,
    floor: float = FLOOR,
    peaks: Sequence[PeakLimit] = (),
) -> Derived:
    """The child with the highest score among those whose cost is 0.95 to 1.00 times ``budget``.

    Args:
        cost: the cost of every child of the space.
        probabilities: ``softmax(logits)`` of each decision.
        budget: the limit, in the unit of ``cost``.
        floor: the lowest share of the budget, instead of 0.95; 0 for no lower bound.
        peaks: limits that no block of the child may exceed.

    Raises:
        DmaskError: if no child of the space is within the budget.
    """
    scores = log_scores(probabilities)
    for lowest in (floor * budget, -np.inf):
        best: Choice | None = None
        for resolution in range(len(cost.corrections)):
            known = -np.inf if best is None else score_of(cost.space, scores, best)
            choice = _derive_at(cost, scores, resolution, (lowest, budget), known, peaks)
            if choice is not None and score_of(cost.space, scores, choice) > known:
                best = choice
        if best is not None:
            return Derived(best, score_of(cost.space, scores, best), 0.0, lowest == -np.inf)
    held: list[tuple[SpaceCost, float]] = [(cost, budget)] if cost.name else []
    held += peaks
    raise DmaskError(
        f"no child of '{cost.space.name}' has {' and '.join(f'{c.name} <= {b:g} {c.unit}' for c, b in held)}",
        f"the space reaches {', '.join(_describe_range(c) for c, _ in held)}",
    )


def _describe_range(cost: SpaceCost) -> str:
    low, high = cost.reachable()
    return f"{low:.4g} to {high:.4g} {cost.unit}"


def _derive_at(
    cost: ChainCost,
    scores: list[np.ndarray],
    resolution: int,
    bounds: tuple[float, float],
    known: float,
    peaks: Sequence[PeakLimit],
) -> Choice | None:
    """The best child at one resolution whose cost is within ``bounds``, if its score is at least ``known``."""
    correction, (floor, budget) = cost.corrections[resolution], bounds
    known -= float(scores[0][resolution])
    steps = [_step(cost, scores, resolution, k, peaks) for k in range(len(cost.space.slots))]
    # Rounding must neither lose a child exactly at the bound nor let a child exceed its budget. So the bounds are first
    # slightly widened, and then slightly narrowed if the child that was found exceeds them.
    for (use_low, use_high), hair in itertools.product(((False, True), (True, False), (True, True)), (1e-12, -1e-12)):
        low = correction.invert(floor) * (1 - hair) if use_low else -np.inf
        high = correction.invert(budget) * (1 + hair) if use_high else np.inf
        if not np.isfinite(low) and not np.isfinite(high):
            continue
        path = _search(steps, low, high, known)
        if path is None:
            if use_high and not use_low:
                return None  # no child is under the budget
            continue
        choice = _choice(cost.space, steps, path, resolution)
        if floor <= cost.cost(choice) <= budget:
            return choice
    return None


def _step(cost: ChainCost, scores: list[np.ndarray], resolution: int, index: int, peaks: Sequence[PeakLimit]) -> _Step:
    space, slot, block = cost.space, cost.space.slots[index], cost.blocks[index]
    tied = slot.in_width == slot.out_width
    inside = block.decisions[1:] if tied else block.decisions[2:]
    combinations = list(itertools.product(*(range(len(space.decisions[d].options)) for d in inside)))
    if slot.skip is not None:  # a skipped block is one variant; its other gates do not matter
        place = inside.index(slot.skip)
        combinations = [c for c in combinations if not c[place] or not any(c[:place] + c[place + 1 :])]
    variants = tuple(dict(zip(inside, c, strict=True)) for c in combinations)
    widths = len(scores[slot.in_width]), len(scores[slot.out_width])
    costs = np.zeros((*widths, len(variants)))
    own = np.full((*widths, len(variants)), -np.inf)
    opens = index == 0 or space.slots[index - 1].out_width != slot.out_width
    for i, j in itertools.product(*map(range, widths)):
        if tied and i != j:
            continue
        for m, variant in enumerate(variants):
            place_of_costs = (resolution, i, *variant.values()) if tied else (resolution, i, j, *variant.values())
            if any(peak.cost.blocks[index].values[place_of_costs] > peak.limit for peak in peaks):
                continue
            costs[i, j, m] = block.values[place_of_costs]
            skipped = slot.skip is not None and variant[slot.skip]
            active = [slot.skip] if skipped else list(variant)
            own[i, j, m] = sum(scores[d][variant[d]] for d in active if d is not None)
            own[i, j, m] += scores[slot.out_width][j] if opens else 0.0
    return _Step(costs, own, variants)


def _search(steps: list[_Step], low: float, high: float, known: float) -> list[tuple[int, int]] | None:
    """The best chain as (output width, variant) of every step.

    None if no chain has a cost between low and high and a score of at least ``known``.
    """
    least = _rest(steps, lambda step: np.where(np.isneginf(step.scores_IJM), -np.inf, -step.costs_IJM))
    most = _rest(steps, lambda step: np.where(np.isneginf(step.scores_IJM), -np.inf, step.costs_IJM))
    bounds, incumbent = _lagrange(steps, low, high)
    incumbent = max(incumbent, known)
    layers = [_Labels(np.zeros(1), np.zeros(1), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int))]
    for k, step in enumerate(steps):
        if _num_extended(layers[-1], step) > MAX_LABELS:
            start = layers[0]
            if min(float(bound.of(start, 0, 0)[0]) for bound in bounds) <= known + 1e-9:
                return None
            return best_path([s.costs_IJM for s in steps], [s.scores_IJM for s in steps], low, high)
        arrived = []
        for j in range(step.costs_IJM.shape[1]):
            labels = _extend(layers[-1], step, j)
            ends = (labels.cost - least[k + 1][j] <= high) & (labels.cost + most[k + 1][j] >= low)
            labels = labels.take(ends)
            for bound in bounds:
                labels = labels.take(bound.of(labels, k + 1, j) >= incumbent - 1e-9)
            arrived.append(labels.take(_undominated(labels, low, high)))
        layers.append(_Labels(*(np.concatenate(arrays) for arrays in zip(*arrived, strict=True))))
    last = layers[-1]
    if not len(last.cost):
        return None
    # Among equal scores take the more expensive child: it uses more of the budget.
    best = int(np.lexsort((last.cost, last.score))[-1])
    path = []
    for layer in reversed(layers[1:]):
        path.append((int(layer.width[best]), int(layer.variant[best])))
        best = int(layer.parent[best])
    return path[::-1]


def _num_extended(labels: _Labels, step: _Step) -> int:
    """How many labels `_extend` makes for all output widths together."""
    transitions_I = np.isfinite(step.scores_IJM).sum((1, 2))
    return int(transitions_I[labels.width].sum())


def _extend(labels: _Labels, step: _Step, j: int) -> _Labels:
    """All labels extended by all variants of a step to output width ``j``."""
    scores_LM = labels.score[:, None] + step.scores_IJM[labels.width, j]
    costs_LM = labels.cost[:, None] + step.costs_IJM[labels.width, j]
    parent, variant = np.nonzero(np.isfinite(scores_LM))
    return _Labels(costs_LM[parent, variant], scores_LM[parent, variant], np.full(len(parent), j), parent, variant)


def _undominated(labels: _Labels, low: float, high: float) -> np.ndarray:
    """Indices of the labels that no other label dominates under the given bounds (see the top of this file)."""
    cost = -labels.cost if np.isinf(high) else labels.cost
    order = np.lexsort((-labels.score, cost))
    score, cost = labels.score[order], cost[order]
    if np.isfinite(low) and np.isfinite(high):  # only labels with the same cost can be compared
        return order[np.concatenate(([True], cost[1:] != cost[:-1]))] if len(order) else order
    best_before = np.maximum.accumulate(np.concatenate(([-np.inf], score[:-1]))) if len(order) else score
    return order[score > best_before]


def _rest(steps: list[_Step], value: object) -> list[np.ndarray]:
    """For each slot and input width, the highest sum of ``value`` over the rest of the chain."""
    assert callable(value)
    rest = [np.zeros(steps[-1].costs_IJM.shape[1])]
    for step in reversed(steps):
        rest.append((value(step).max(2) + rest[-1][None, :]).max(1))
    return rest[::-1]


def _lagrange(steps: list[_Step], low: float, high: float) -> tuple[list[_Bound], float]:
    """Bounds for several multipliers around the best one, and the score of the best child found on the way."""

    def bound_at(multiplier: float) -> _Bound:
        anchor = high if multiplier > 0 else low if multiplier < 0 else 0.0
        return _Bound(multiplier, anchor, _rest(steps, lambda step: step.scores_IJM - multiplier * step.costs_IJM))

    incumbent, bounds = -np.inf, [bound_at(0.0)]
    scale = max(1e-12, float(np.mean([step.costs_IJM.mean() for step in steps])))
    score, cost = _follow(steps, bounds[0])
    if low <= cost <= high:
        return bounds, score
    sign = 1.0 if cost > high else -1.0
    small, large = 0.0, 1e6 / scale
    for _ in range(MULTIPLIER_STEPS):
        middle = np.sqrt(max(small, 1e-9 / scale) * large)
        bound = bound_at(sign * middle)
        score, cost = _follow(steps, bound)
        bounds.append(bound)
        if low <= cost <= high:
            incumbent = max(incumbent, score)
        if (cost > high) == (sign > 0) and not low <= cost <= high:
            small = middle
        else:
            large = middle
    return [bounds[0], *bounds[len(bounds) // 4 :: 4], bounds[-1]], incumbent


def _follow(steps: list[_Step], bound: _Bound) -> tuple[float, float]:
    """Score and cost of the chain that attains a bound."""
    width, score, cost = 0, 0.0, 0.0
    for k, step in enumerate(steps):
        values = step.scores_IJM[width] - bound.multiplier * step.costs_IJM[width] + bound.rest[k + 1][:, None]
        j, m = np.unravel_index(int(values.argmax()), values.shape)
        score += float(step.scores_IJM[width, j, m])
        cost += float(step.costs_IJM[width, j, m])
        width = int(j)
    return score, cost


def _choice(space: SearchSpace, steps: list[_Step], path: list[tuple[int, int]], resolution: int) -> Choice:
    indices = [0] * len(space.decisions)
    indices[0] = resolution
    for slot, step, (width, variant) in zip(space.slots, steps, path, strict=True):
        indices[slot.out_width] = width
        for decision, option in step.variants[variant].items():
            indices[decision] = option
    return Choice(indices=tuple(indices))
