"""Does a single search meet its budget? All shipped spaces, budgets at 25, 50 and 75% of their ranges, three seeds.

    python benchmarks/budget_landing.py [--json] [--seeds 3] [--processes 2] [--work FOLDER]

The searches are short: 512 rendered characters, an eighth of the resolutions of spaces for large images, four epochs,
and the other settings at their defaults. A search meets its budget if its expected cost is within 3% of the budget, its
mean gate entropy is at most 20% of uniform, and the derived child's cost is in [0.95, 1.00] times the budget. An
interrupted run continues in ``--work``. The script writes ``benchmarks/results/budget_landing.json``.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import keep

from dmask_mobile.costs.counts import Macs
from dmask_mobile.data.load import load_data
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import SearchSpace, load_space, shipped_spaces
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings

PLACES = (0.25, 0.50, 0.75)
NUM_IMAGES = 512
SETTINGS = SearchSettings(epochs=4)
LARGEST, SHRINK = 64, 8  # px; resolutions above are divided


def small(name: str) -> SearchSpace:
    """The shipped space of this name, for 36 characters of at most 64 pixels."""
    space = load_space(name)
    resolutions = space.input.resolutions
    if max(resolutions) > LARGEST:
        resolutions = tuple(sorted({resolution // SHRINK for resolution in resolutions}))
    return SearchSpace.model_validate({**space.model_dump(), "classes": 36, "input": {"resolutions": resolutions}})


class Landing(NamedTuple):
    """The result of one search; costs are shares of the budget."""

    space: str
    place: float
    seed: int
    expected: float
    entropy: float
    derived: float
    minutes: float

    @property
    def landed(self) -> bool:
        """Whether the three conditions at the top of this file hold."""
        return abs(self.expected - 1) <= 0.03 and self.entropy <= 0.2 and 0.95 <= self.derived <= 1


def search_once(name: str, place: float, seed: int, work: Path) -> Landing:
    """One search on one thread."""
    torch.set_num_threads(1)
    start = time.monotonic()
    space = small(name)
    cost = Macs().on(space)
    low, high = cost.reachable()
    budget = low + place * (high - low)
    data = load_data("glyphs", space.resolution, DataOptions(workers=0))
    chosen = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[:NUM_IMAGES]
    few = replace(data, train=data.train.subset(chosen))
    settings = SETTINGS.model_copy(update={"seed": seed})
    searcher = Searcher(space, few, [Budget(cost, budget)], settings)
    found = searcher.run(work / f"{name}-{place}-{seed}" / "checkpoint.pt")
    child = choose_child(searcher, found)
    minutes = (time.monotonic() - start) / 60
    return Landing(name, place, seed, found.expected[0] / budget, found.entropy, child.costs[0] / budget, minutes)


def measure(seeds: int, processes: int, work: Path) -> dict[str, Any]:
    """All searches, and how many met their budgets."""
    jobs = [(*job, work) for job in itertools.product(shipped_spaces(), PLACES, range(seeds))]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        landings = pool.starmap(search_once, jobs, chunksize=1)
    return {
        "searches": [{**landing._asdict(), "landed": landing.landed} for landing in landings],
        "num_landed": sum(landing.landed for landing in landings),
        "settings": SETTINGS.model_dump(),
    }


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="searches at once, one thread each")
    parser.add_argument("--work", type=Path, help="folder of the searches; use the same one to continue")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="budget-landing-"))
    result = measure(arguments.seeds, arguments.processes, work)
    keep("budget_landing", result, arguments.json)
    if arguments.json:
        return
    print("space            place  seed  expected/budget  entropy  child/budget  minutes  landed")
    for s in result["searches"]:
        print(
            f"{s['space']:15}  {s['place']:5.0%}  {s['seed']:4d}  {s['expected']:15.4f}  {s['entropy']:7.3f}"
            f"  {s['derived']:12.4f}  {s['minutes']:7.1f}  {'yes' if s['landed'] else 'NO'}"
        )
    print(f"{result['num_landed']} of {len(result['searches'])} landed")


if __name__ == "__main__":
    main()
