"""The jobs that take long, each done once: searches, trainings, tests, the measuring of what is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from search_quality.images import test_images
from search_quality.once import CpuClock, Result, folder_of, once

from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import ChildNetwork, build
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.near_budget import centre_on_budgets, draw_near
from dmask_mobile.search.rank import recalibrate
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.training.distillation import Teacher
from dmask_mobile.training.evaluation import evaluate
from dmask_mobile.training.train import TrainSettings, train_child
from own_network.given import Given, inherited, latency_model
from own_network.landing import Landed, land, landing_identity, measured, uniform

DRAWS = 50  # children whose multiply-adds are typical of the latency budget


class Job(NamedTuple):
    """A training: ``start``: a file with the weights of the widest network, or empty for random weights."""

    contender: str
    seed: int
    child: ChildSpec
    settings: TrainSettings
    start: str

    def network(self, given: Given) -> ChildNetwork:
        """Before it is trained; with weights from a file, its batch norms have seen training images."""
        if not self.start:
            return build(self.child, torch.Generator().manual_seed(self.seed))
        network = inherited(torch.load(self.start, weights_only=True), self.child)
        data = given.data(self.child.resolution)
        recalibrate(network, data.train, data)
        return network

    def identity(self, given: Given) -> dict[str, Any]:
        """What the training depends on; the name of a start's file does."""
        return {
            **given.identity,
            "child": self.child.digest(),
            "settings": self.settings.model_dump(mode="json"),
            "start": Path(self.start).parent.name,
        }


def typical_macs(given: Given, latency_ms: float) -> float:
    """The multiply-adds that children of this latency have in the median."""
    latency, macs = given.cost(), given.cost("macs")
    prior, generator = GateLogits(given.space), torch.Generator().manual_seed(0)
    centre_on_budgets(prior, [latency], [latency_ms])
    budgets = [Budget(latency, latency_ms)]
    return float(np.median([macs.cost(draw_near(prior, budgets, generator)) for _ in range(DRAWS)]))


def search(given: Given, cost: str, seed: int) -> Result:
    """One search down from the given network, with a budget of latency or multiply-adds, brought to the latency.

    ``search_seconds``: CPU seconds until the child was chosen for the first time, without measuring.
    """
    latency = given.cost()
    limit = given.plan.budget * latency.cost(given.space.largest())
    if cost == "macs":
        limit = typical_macs(given, limit)
    held, settings = given.cost(cost), given.plan.searching(given.space, seed)
    identity = {
        **given.identity,
        **landing_identity(given),
        **{"cost": [cost, limit, held.digest()], "settings": settings.model_dump(mode="json")},
    }

    def job(folder: Path, clock: CpuClock) -> Result:
        data, state = given.data(), given.state
        searcher = Searcher(given.space, data, [Budget(held, limit)], settings, weights=state)
        found = searcher.run(folder / "checkpoint.pt", clock)
        chosen_after: list[float] = []

        def propose(scale: float) -> list[ChildSpec]:
            reachable = held.reachable()
            wanted = min(reachable.high, max(reachable.low, limit * scale))
            searcher = Searcher(given.space, data, [Budget(held, wanted)], settings, weights=state)
            record = choose_child(searcher, found)
            chosen_after.append(clock.seconds())
            return [given.space.child(record.choice)]

        return {
            **_landed(land(given, propose)),
            "search_seconds": chosen_after[0],
            "warnings": list(found.warnings),
        }

    return once(given.work, "search", identity, job)


def scale_uniformly(given: Given, resolution: int) -> Result:
    """The given network scaled uniformly to the budget."""
    identity = {**landing_identity(given), "space": given.space.digest(), "resolution": resolution}
    return once(given.work, "uniform", identity, lambda folder, clock: _landed(uniform(given, resolution)))


def _landed(landed: Landed) -> Result:
    return {"child": landed.child.model_dump(mode="json"), "ratio": landed.ratio, "tried": landed.tried}


def train(given: Given, job: Job) -> Result:
    """The validation accuracy of a network after its training. Its weights are kept for the test."""

    def training(folder: Path, clock: CpuClock) -> Result:
        network, data = job.network(given), given.data(job.child.resolution)
        before = evaluate(network, data.val, data)
        teacher = None
        if job.settings.distillation is not None:
            teacher = Teacher(inherited(given.state, given.original), torch.device("cpu"))
        trained = train_child(network, data, job.settings, folder / "checkpoint.pt", clock, teacher=teacher)
        torch.save(network.state_dict(), folder / "weights.pt")
        return {"val": trained.accuracy, "val_before": before, "epochs": job.settings.epochs}

    return once(given.work, "train", job.identity(given), training)


def trained_network(given: Given, job: Job) -> ChildNetwork:
    """A network with the weights that `train` has kept."""
    network = build(job.child)
    path = folder_of(given.work, "train", job.identity(given)) / "weights.pt"
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def test(given: Given, job: Job) -> Result:
    """The test accuracy of a trained network; the same weights are never tested twice."""

    def testing(folder: Path, clock: CpuClock) -> Result:
        images = test_images(given.work, given.plan, given.images["spec"])
        data = given.data(job.child.resolution)
        return {"test": evaluate(trained_network(given, job), images, data)}

    return once(given.work, "test", job.identity(given), testing)


def session(given: Given, children: dict[str, ChildSpec]) -> Result:
    """The latencies of all networks, measured in one session, and what the table predicts for them, if it can."""

    def job(folder: Path, clock: CpuClock) -> Result:
        found = measured(given, list(children.values()))
        predicted = {name: _predicted_ms(given, child) for name, child in children.items()}
        ms = dict(zip(children, found.ms, strict=True))
        return {"ms": ms, "predicted_ms": predicted, "disagreement": found.disagreement}

    digests = {name: child.digest() for name, child in children.items()}
    identity = {"networks": digests, "table": given.cost().digest(), "measuring": given.plan.measuring.model_dump()}
    return once(given.work, "session", identity, job)


def _predicted_ms(given: Given, child: ChildSpec) -> float | None:
    """None for a network outside of the space whose blocks the table does not know."""
    try:
        return latency_model(given.table).estimate(child).value
    except DmaskError:
        return None
