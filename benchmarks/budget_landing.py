"""Does one search land on its budget? Budgets at 25, 50 and 75% of the reachable range, three seeds each.

    python benchmarks/budget_landing.py [--json] [--seeds 3] [--processes 2] [--work FOLDER]

Default settings, a small space with every dimension searched (resolution too), 2,000 rendered characters. A search
has landed when its expected cost is within 3% of the budget, its mean gate entropy at most 20% of uniform, and the
derived child's cost in [0.95, 1.00] times the budget. An interrupted run goes on in ``--work``. Writes
``benchmarks/results/budget_landing.json``.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import keep

from dmask_mobile.costs.counts import Macs
from dmask_mobile.data.load import load_data
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.result import choose_child
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings

PLACES = (0.25, 0.50, 0.75)
NUM_IMAGES = 2000
SPACE = SearchSpace.model_validate(
    {
        "name": "landing",
        "classes": 36,
        "input": {"resolutions": [16, 24, 32]},
        "stem": {"widths": [8, 12, 16]},
        "stages": [
            {"blocks": 1, "widths": [8, 12, 16], "expansions": [1, 2, 3], "kernels": [3, 5]},
            {"blocks": 2, "widths": [16, 20, 24, 28, 32], "stride": 2, "expansions": [2, 3, 4, 6], "kernels": [3, 5],
             "squeeze_excite": [False, True], "skip": True},
            {"blocks": 3, "widths": [24, 32, 40, 48], "stride": 2, "expansions": [2, 3, 4, 6], "kernels": [3, 5],
             "squeeze_excite": [False, True], "activation": "hswish", "skip": True},
        ],
        "last": {"widths": [64, 96, 128]},
    }
)  # fmt: skip


class Landing(NamedTuple):
    """How one search ended; costs as shares of the budget."""

    place: float
    seed: int
    expected: float
    entropy: float
    derived: float
    minutes: float

    @property
    def landed(self) -> bool:
        """The three conditions at the head of this file."""
        return abs(self.expected - 1) <= 0.03 and self.entropy <= 0.2 and 0.95 <= self.derived <= 1


def search_once(place: float, seed: int, work: Path) -> Landing:
    """One search with default settings on one thread."""
    torch.set_num_threads(1)
    start = time.monotonic()
    cost = Macs().on(SPACE)
    low, high = cost.reachable()
    budget = low + place * (high - low)
    data = load_data("glyphs", SPACE.resolution)
    chosen = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[:NUM_IMAGES]
    few = type(data)(**{**vars(data), "train": data.train.subset(chosen)})
    searcher = Searcher(SPACE, few, [Budget(cost, budget)], SearchSettings(seed=seed))
    found = searcher.run(work / f"{place}-{seed}" / "checkpoint.pt")
    child = choose_child(searcher, found)
    minutes = (time.monotonic() - start) / 60
    return Landing(place, seed, found.expected[0] / budget, found.entropy, child.costs[0] / budget, minutes)


def measure(seeds: int, processes: int, work: Path) -> dict[str, Any]:
    """All searches, and how many landed."""
    jobs = [(place, seed, work) for place, seed in itertools.product(PLACES, range(seeds))]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        landings = pool.starmap(search_once, jobs, chunksize=1)
    return {
        "searches": [{**landing._asdict(), "landed": landing.landed} for landing in landings],
        "num_landed": sum(landing.landed for landing in landings),
        "num_children": SPACE.num_children(),
        "settings": SearchSettings().model_dump(),
    }


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="searches at once, one thread each")
    parser.add_argument("--work", type=Path, help="folder of the searches; give the same one to go on")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="budget-landing-"))
    result = measure(arguments.seeds, arguments.processes, work)
    keep("budget_landing", result, arguments.json)
    if arguments.json:
        return
    print("place  seed  expected/budget  entropy  child/budget  minutes  landed")
    for s in result["searches"]:
        print(
            f"{s['place']:5.0%}  {s['seed']:4d}  {s['expected']:15.4f}  {s['entropy']:7.3f}  {s['derived']:12.4f}"
            f"  {s['minutes']:7.1f}  {'yes' if s['landed'] else 'NO'}"
        )
    print(f"{result['num_landed']} of {len(result['searches'])} landed")


if __name__ == "__main__":
    main()
