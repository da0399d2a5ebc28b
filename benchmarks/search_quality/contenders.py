"""How each contender proposes its networks, nearer to the wanted latency with each attempt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.features import Features
from dmask_mobile.search.loss_model import CAPACITY, RESOLUTION, Effects, gains_of_whole_trainings
from dmask_mobile.search.scaling import Way
from dmask_mobile.search.single_path import best_child
from search_quality.bench import Bench, Network
from search_quality.children import CENTRE, scaled_children
from search_quality.jobs import choose_again, search, search_identity, search_ungated

AT_ONCE = 8  # networks of a ranked list that are measured together
SCALED_AT_ONCE = 3
STEPS = tuple(0.01 * step for step in (0, -1, 1, -2, 2, -3, 3, -4, 4))  # around a corrected budget
MULTIPLIERS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
NEAR_MULTIPLIERS = (1.0, 0.97, 1.03)


class Tried(NamedTuple):
    """A network that was measured: its latency as a share of the wanted one; ``scale``: how it was asked for."""

    network: Network
    scale: float
    ratio: float


class Proposal(NamedTuple):
    """A network to measure."""

    network: Network
    scale: float = 1.0


class Contender(Protocol):
    """``key`` names it in tables; ``identity``: everything that its choice depends on, beside what was measured."""

    @property
    def key(self) -> str: ...

    @property
    def identity(self) -> dict[str, Any]: ...

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        """The next networks, the preferred one first."""
        ...


def _corrected(tried: list[Tried]) -> float:
    """How the next network is to be asked for: by as much as the nearest one so far missed the wanted latency."""
    nearest = min(tried, key=lambda each: abs(math.log(each.ratio)), default=Tried(Network(), 1.0, 1.0))
    return nearest.scale / nearest.ratio


def _scales(tried: list[Tried], cost: ChainCost, limit: float) -> list[float]:
    """Those around the corrected one, as shares of ``limit``; each within what the space can reach."""
    low, high = cost.reachable()
    return [min(high, max(low, limit * _corrected(tried) * (1 + step))) / limit for step in STEPS]


@dataclass(frozen=True)
class Searched:
    """The search: its child, others that it ranked, then the children of the same gates within corrected budgets."""

    bench: Bench
    seed: int
    cost: str
    limit: float

    @property
    def key(self) -> str:
        return f"{'searched' if self.cost == 'latency' else 'searched_macs'}-{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        return search_identity(self.bench, self.seed, self.cost, self.limit)

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        result = search(self.bench, self.seed, self.cost, self.limit)
        known = [Choice(indices=indices) for indices in result["choices"]]
        if ranked := known[len(tried) :][:AT_ONCE]:
            return [Proposal(Network(choice=choice)) for choice in ranked]
        scales = _scales(tried, self.bench.cost(self.cost), self.limit)
        choices = choose_again(self.bench, self.identity, scales)["choices"]
        found = {tuple(indices): scale for indices, scale in zip(choices, scales, strict=True)}
        return [Proposal(Network(choice=Choice(indices=indices)), scale) for indices, scale in found.items()]


@dataclass(frozen=True)
class Ungated:
    """The best children of a search's supernet by accuracy alone, found ``how``: ungated (by chance) or evolved."""

    searched: Searched
    how: str

    @property
    def key(self) -> str:
        return f"{self.how}-{self.searched.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        return {**self.searched.identity, "how": self.how, **self.searched.bench.protocol.ungated.model_dump()}

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        found = search_ungated(self.searched.bench, self.searched.identity, self.how, self.searched.seed)
        best = found["choices"][len(tried) : len(tried) + AT_ONCE]
        return [Proposal(Network(choice=Choice(indices=indices))) for indices in best]


@dataclass(frozen=True)
class Uniform:
    """The widest child, scaled in one way."""

    bench: Bench
    way: Way

    @property
    def key(self) -> str:
        return f"uniform-{self.way}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"way": self.way}

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        scale = _corrected(tried)
        choices = scaled_children(self.bench.cost(), self.way, scale * CENTRE * self.bench.budget_ms, 100)
        known = {each.network.choice for each in tried}
        new = [choice for choice in choices if choice not in known][:SCALED_AT_ONCE]
        return [Proposal(Network(choice=choice), scale) for choice in new]


@dataclass(frozen=True)
class Capacity:
    """The child that the search would take if its trials showed nothing: no training is needed to find it."""

    bench: Bench

    @property
    def key(self) -> str:
        return "capacity"

    @property
    def identity(self) -> dict[str, Any]:
        return {"gains": [RESOLUTION, CAPACITY]}

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        space, cost, limit = self.bench.space, self.bench.cost(), self.bench.budget_ms
        features = Features(space)
        effects = Effects(features.split(-gains_of_whole_trainings(features)), spread=1.0)
        found: dict[Choice, float] = {}
        for scale in _scales(tried, cost, limit):
            found.setdefault(best_child(space, effects, [Budget(cost, scale * limit)]), scale)
        known = {each.network.choice for each in tried}
        return [Proposal(Network(choice=choice), scale) for choice, scale in found.items() if choice not in known]


@dataclass(frozen=True)
class MobileNet:
    """MobileNetV3 of timm with its widths multiplied."""

    bench: Bench
    variant: str

    @property
    def key(self) -> str:
        return f"mobilenetv3-{self.variant}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"variant": self.variant}

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        multipliers = list(MULTIPLIERS)
        if tried:
            ordered = sorted(tried, key=lambda each: each.ratio)
            ratios, scales = ([math.log(getattr(each, name)) for each in ordered] for name in ("ratio", "scale"))
            middle = math.exp(float(np.interp(0, ratios, scales)))
            multipliers = [round(middle * factor, 4) for factor in NEAR_MULTIPLIERS]
        known = {each.scale for each in tried}
        new = [multiplier for multiplier in multipliers if multiplier not in known]
        return [Proposal(Network(variant=self.variant, multiplier=found), found) for found in new]
