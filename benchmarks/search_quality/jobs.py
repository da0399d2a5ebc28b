"""The jobs that take long: a search, what is asked of its supernet, a training, a test. Each runs on one thread."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from dmask_mobile.data.images import ImageData
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.rank import recalibrated_accuracy
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher, SearchResult
from dmask_mobile.training.evaluation import evaluate
from dmask_mobile.training.train import train_child
from search_quality.bench import Bench, Network
from search_quality.children import evolve, within
from search_quality.images import test_images
from search_quality.once import CpuClock, Result, folder_of, once


def search_identity(bench: Bench, seed: int, cost: str, limit: float) -> dict[str, Any]:
    """What a search depends on; ``name`` stands for its code."""
    settings = bench.search.model_copy(update={"seed": seed, "epochs": bench.setting.search_epochs})
    if "epochs" in bench.search.model_fields_set:
        settings = settings.model_copy(update={"epochs": bench.search.epochs})
    return {
        "name": bench.name,
        "settings": settings.model_dump(mode="json"),
        "images": bench.images["identity"],
        "cost": [cost, limit, bench.cost(cost).digest()],
        "space": bench.space.digest(),
    }


def _searcher(bench: Bench, identity: dict[str, Any], data: ImageData, limit: float) -> Searcher:
    cost = bench.cost(identity["cost"][0])
    settings = type(bench.search).model_validate(identity["settings"])
    return Searcher(bench.space, data, [Budget(cost, limit)], settings)


def _searched(bench: Bench, identity: dict[str, Any], data: ImageData) -> SearchResult:
    """A search that was made before, from its checkpoint."""
    folder = folder_of(bench.work, "search", identity)
    return _searcher(bench, identity, data, identity["cost"][1]).run(folder / "checkpoint.pt")


def search(bench: Bench, seed: int, cost: str, limit: float) -> Result:
    """One search and the child that it derives."""
    identity = search_identity(bench, seed, cost, limit)

    def job(folder: Path, clock: CpuClock) -> Result:
        searcher = _searcher(bench, identity, bench.data(), limit)
        found = searcher.run(folder / "checkpoint.pt", clock)
        trained = clock.seconds()
        child = choose_child(searcher, found)
        ranked = [candidate.choice for candidate in child.candidates]
        return {
            "seed": seed,
            "choices": [list(choice.indices) for choice in dict.fromkeys([child.choice, *ranked])],
            "decided": child.decided,
            "expected_to_budget": child.expected[0] / limit,
            "cost_to_budget": child.costs[0] / limit,
            "entropy": child.entropy,
            "evaluations": len(child.candidates),
            "choosing_cpu_seconds": clock.seconds() - trained,
            "warnings": list(child.warnings),
        }

    return once(bench.work, "search", identity, job)


def choose_again(bench: Bench, identity: dict[str, Any], scales: list[float]) -> Result:
    """The children of a finished search within several multiples of its budget."""

    def job(folder: Path, clock: CpuClock) -> Result:
        data = bench.data()
        found = _searched(bench, identity, data)
        limits = [scale * identity["cost"][1] for scale in scales]
        chosen = [choose_child(_searcher(bench, identity, data, limit), found).choice for limit in limits]
        return {"choices": [list(choice.indices) for choice in chosen]}

    return once(bench.work, "choose", {**identity, "scales": scales}, job)


def supernet_accuracies(bench: Bench, identity: dict[str, Any], choices: list[Choice]) -> Result:
    """The accuracy of children with the weights of a finished search, on all validation images."""

    def job(folder: Path, clock: CpuClock) -> Result:
        data = bench.data()
        found = _searched(bench, identity, data)
        judged = [recalibrated_accuracy(found.supernet, choice, (data.train, data.val), data) for choice in choices]
        return {"accuracies": judged}

    return once(bench.work, "rank", {**identity, "choices": [list(choice.indices) for choice in choices]}, job)


def search_ungated(bench: Bench, identity: dict[str, Any], how: str, seed: int) -> Result:
    """The best children of a trained supernet without its gates, by random search or by evolution, best first."""
    settings = bench.protocol.ungated

    def job(folder: Path, clock: CpuClock) -> Result:
        data = bench.data()
        supernet = _searched(bench, identity, data).supernet
        images = data.train.some(settings.recalibration_images), data.val.some(settings.images)
        known = Known(folder / "accuracies.jsonl")

        def accuracy(choice: Choice) -> float:
            return known(choice, lambda: recalibrated_accuracy(supernet, choice, images, data), clock)

        cost, generator = bench.cost(), random.Random(seed)
        if how == "evolved":
            evolve(cost, bench.budget_ms, accuracy, settings, generator)
        else:
            for choice in within(cost, bench.budget_ms, settings.evaluations, generator):
                accuracy(choice)
        best = sorted(known.accuracies.items(), key=lambda found: -found[1])[:100]
        return {
            "evaluations": len(known.accuracies),
            "choices": [list(indices) for indices, _ in best],
            "accuracies": [found for _, found in best],
        }

    return once(bench.work, how, {**identity, **bench.budget, **settings.model_dump(), "seed": seed}, job)


class Known:
    """Accuracies that were measured before, kept in a file as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.accuracies = {tuple(line[0]): float(line[1]) for line in map(json.loads, lines)}

    def __call__(self, choice: Choice, measure: Any, clock: CpuClock) -> float:
        if choice.indices not in self.accuracies:
            found = self.accuracies[choice.indices] = measure()
            with self.path.open("a") as file:
                file.write(json.dumps([list(choice.indices), found]) + "\n")
            clock("rank", len(self.accuracies), 0)
        return self.accuracies[choice.indices]


def training_identity(bench: Bench, network: Network, seed: int) -> dict[str, Any]:
    """What a training depends on."""
    return {
        **bench.identity(network),
        "images": bench.images["identity"],
        "settings": bench.training(seed).model_dump(mode="json"),
    }


def train(bench: Bench, network: Network, seed: int) -> Result:
    """A network trained from scratch: its validation accuracy. Its weights are kept for the test."""

    def job(folder: Path, clock: CpuClock) -> Result:
        data, module = bench.data().at(bench.resolution(network)), bench.module(network, seed)
        trained = train_child(module, data, bench.training(seed), folder / "checkpoint.pt", clock)
        torch.save(module.state_dict(), folder / "weights.pt")
        return {"val": trained.accuracy}

    return once(bench.work, "train", training_identity(bench, network, seed), job)


def test(bench: Bench, network: Network, seed: int) -> Result:
    """The test accuracy of a trained network; the same weights are never tested twice."""
    identity = training_identity(bench, network, seed)

    def job(folder: Path, clock: CpuClock) -> Result:
        module = bench.module(network, seed)
        weights = folder_of(bench.work, "train", identity) / "weights.pt"
        module.load_state_dict(torch.load(weights, weights_only=True))
        data = bench.data().at(bench.resolution(network))
        images = test_images(bench.work, bench.setting, bench.images["spec"])
        return {"test": evaluate(module, images, data)}

    return once(bench.work, "test", identity, job)
