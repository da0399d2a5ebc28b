"""Does the search find anything? Its child against uniform width scaling and against random feasible children.

    python benchmarks/search_signal.py [--json] [--work runs/search_signal] [--processes 2]

Characters of Debian's ``fonts-aenigma`` (validation images from font families of their own), the space
``mobilenet_small`` at 16, 24 and 32 pixels, one budget in this machine's measured latency, three seeds. For each seed:
one search and the child that it derives; the widest child with all widths scaled alike; four random children. Every
child lies in [0.95, 1.00] times the budget and is trained alike, from scratch. No choice is made on the validation
images: the gates learn from a part of the training images. CPU time is that of the one thread each job runs in.

Resumable: started again with the same ``--work`` it goes on. Writes ``benchmarks/results/search_signal.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import keep

from dmask_mobile import api
from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.data.images import ImageData
from dmask_mobile.data.load import load_data
from dmask_mobile.nets.build import build
from dmask_mobile.records.base import write_atomically
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.train import TrainSettings, train_child
from latency_tables.profiling.settings import ProfileSettings

FONTS = "/usr/share/fonts/truetype/aenigma"
RESOLUTIONS = (16, 24, 32)
SEEDS, NUM_RANDOM = 3, 4
SCALE = 0.6  # of the widest child's widths and expansions: the uniform child, and with it the budget
SEARCH = SearchSettings(epochs=6)
TRAINING = TrainSettings(epochs=10)


class Job(NamedTuple):
    """One child to train."""

    seed: int
    kind: str
    choice: Choice


def the_space() -> SearchSpace:
    """``mobilenet_small`` for 36 characters of at most 32 pixels."""
    shipped = load_space("mobilenet_small").model_dump()
    return SearchSpace.model_validate({**shipped, "classes": 36, "input": {"resolutions": RESOLUTIONS}})


def the_data() -> ImageData:
    """One image of each character of each font; a fifth of the families is for validation, a fifth for testing."""
    return load_data(f"glyphs:{FONTS}", RESOLUTIONS[-1])


def the_cost(work: Path) -> ChainCost:
    """The latency of every child on this machine."""
    table = work / "table.jsonl"
    cost = api.cost_model("latency", [table]).on(the_space())
    assert isinstance(cost, ChainCost)
    return cost


def uniform_child(space: SearchSpace, scale: float) -> Choice:
    """The widest child with every width and expansion brought to the option nearest to ``scale`` times the largest."""
    indices = list(space.largest().indices)
    for index, decision in enumerate(space.decisions):
        if decision.kind in ("width", "expansion") and len(decision.options) > 1:
            wanted = scale * decision.options[-1]
            indices[index] = min(range(len(decision.options)), key=lambda i: abs(decision.options[i] - wanted))
    return Choice(indices=tuple(indices))


def random_children(cost: ChainCost, budget: float, count: int, seed: int) -> list[Choice]:
    """Children drawn uniformly from those in [0.95, 1.00] times the budget, by rejection."""
    generator, found = random.Random(seed), []
    for _ in range(1_000_000):
        choice = cost.space.sample(generator)
        if 0.95 * budget <= cost.cost(choice) <= budget:
            found.append(choice)
            if len(found) == count:
                return found
    raise RuntimeError(f"only {len(found)} random children near the budget in a million draws")


class CpuClock:
    """CPU seconds of a job over all its interrupted runs, kept beside its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
        self.start = time.process_time()

    def seconds(self) -> float:
        """So far."""
        return self.before + time.process_time() - self.start

    def __call__(self, *_: object) -> None:
        """Told after each epoch: keeps the time."""
        write_atomically(self.path, json.dumps({"seconds": self.seconds()}))


def once(folder: Path, job: Callable[[CpuClock], dict[str, Any]]) -> dict[str, Any]:
    """The result of a job on one thread with its CPU time: from ``folder`` where it was done before."""
    done = folder / "result.json"
    if not done.exists():
        torch.set_num_threads(1)
        folder.mkdir(parents=True, exist_ok=True)
        clock = CpuClock(folder / "cpu.json")
        content = job(clock)
        write_atomically(done, json.dumps({**content, "cpu_seconds": clock.seconds()}))
    result: dict[str, Any] = json.loads(done.read_text())
    return result


def search_once(seed: int, budget: float, work: Path) -> dict[str, Any]:
    """One search; what it derived."""
    folder = work / f"search-{seed}"

    def job(clock: CpuClock) -> dict[str, Any]:
        cost, settings = the_cost(work), SEARCH.model_copy(update={"seed": seed})
        searcher = Searcher(cost.space, the_data(), [Budget(cost, budget)], settings)
        found = searcher.run(folder / "checkpoint.pt", clock)
        return {"seed": seed, **choose_child(searcher, found).to_dict()}

    return once(folder, job)


def train_once(job: Job, budget: float, work: Path) -> dict[str, Any]:
    """One child trained from scratch; its accuracy."""
    folder = work / f"{job.kind}-{job.seed}"

    def train(clock: CpuClock) -> dict[str, Any]:
        cost, settings = the_cost(work), TRAINING.model_copy(update={"seed": job.seed})
        child = cost.space.child(job.choice)
        network = build(child, torch.Generator().manual_seed(job.seed))
        accuracy = train_child(network, the_data().at(child.resolution), settings, folder / "train.pt", clock)
        return {
            "seed": job.seed,
            "kind": job.kind,
            "resolution": child.resolution,
            "latency_to_budget": cost.cost(job.choice) / budget,
            "macs": api.cost_model("macs").estimate(child).value,
            "accuracy": accuracy,
        }

    return once(folder, train)


def paired(differences: Sequence[float]) -> dict[str, float]:
    """Mean and standard error of paired differences."""
    return {
        "mean": statistics.mean(differences),
        "standard_error": statistics.stdev(differences) / len(differences) ** 0.5,
    }


def measure(work: Path, processes: int) -> dict[str, Any]:
    """The table, the searches, the trainings, the comparison."""
    space = the_space()
    settings = ProfileSettings(rounds=3, seconds_per_block=0.005, seconds_per_network=0.05)
    api.profile(space, work / "table.jsonl", settings=settings)
    cost = the_cost(work)
    uniform = uniform_child(space, SCALE)
    budget = cost.cost(uniform) / 0.975
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        searches = pool.starmap(search_once, [(seed, budget, work) for seed in range(SEEDS)], chunksize=1)
        jobs = []
        for seed, search in enumerate(searches):
            jobs += [Job(seed, "searched", Choice(**search["choice"])), Job(seed, "uniform", uniform)]
            drawn = random_children(cost, budget, NUM_RANDOM, seed)
            jobs += [Job(seed, f"random{number}", choice) for number, choice in enumerate(drawn)]
        children = pool.starmap(train_once, [(job, budget, work) for job in jobs], chunksize=1)
    return summary(searches, children, budget, cost)


def summary(
    searches: list[dict[str, Any]], children: list[dict[str, Any]], budget: float, cost: ChainCost
) -> dict[str, Any]:
    """Every child and the paired differences between them."""
    accuracy = {(child["seed"], child["kind"]): child["accuracy"] for child in children}
    seeds = range(SEEDS)
    randoms = [statistics.mean(accuracy[seed, f"random{i}"] for i in range(NUM_RANDOM)) for seed in seeds]
    trained = statistics.mean(child["cpu_seconds"] for child in children if child["kind"] == "searched")
    return {
        "budget_ms": budget,
        "reachable_ms": list(cost.reachable()),
        "children": children,
        "searches": [
            {key: search[key] for key in ("seed", "cpu_seconds", "expected", "entropy", "costs", "decided")}
            for search in searches
        ],
        "searched_minus_uniform": paired([accuracy[s, "searched"] - accuracy[s, "uniform"] for s in seeds]),
        "searched_minus_random": paired([accuracy[s, "searched"] - randoms[s] for s in seeds]),
        "search_to_training_cpu": statistics.mean(search["cpu_seconds"] for search in searches) / trained,
        "core_minutes": sum(part["cpu_seconds"] for part in (*searches, *children)) / 60,
        "search_settings": SEARCH.model_dump(),
        "train_settings": TRAINING.model_dump(),
    }


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--work", type=Path, default=Path("runs/search_signal"), help="give the same one to go on")
    parser.add_argument("--processes", type=int, default=2, help="jobs at once, one thread each")
    arguments = parser.parse_args()
    result = measure(arguments.work, arguments.processes)
    keep("search_signal", result, arguments.json)
    if arguments.json:
        return
    print(f"budget {result['budget_ms']:.4f} ms")
    print("seed  child     px  latency/budget   macs (M)  accuracy")
    for c in result["children"]:
        print(
            f"{c['seed']:4d}  {c['kind']:8}  {c['resolution']:2d}  {c['latency_to_budget']:14.3f}"
            f"  {c['macs'] / 1e6:9.2f}  {c['accuracy']:.2%}"
        )
    for other in ("uniform", "random"):
        difference = result[f"searched_minus_{other}"]
        print(f"searched - {other}: {difference['mean']:+.2%} (standard error {difference['standard_error']:.2%})")
    print(f"a search costs {result['search_to_training_cpu']:.2f} times the training of its child")


if __name__ == "__main__":
    main()
