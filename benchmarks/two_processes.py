"""One process against two on two cores, one thread each: images a second in training and in search.

    python benchmarks/two_processes.py [--json] [--rounds 3]

``mobilenet_small`` at 64 px, a global batch of 128, random images in memory. One process and two take turns; the ratio
is the median over rounds. Writes ``benchmarks/results/two_processes.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from record import keep

from dmask_mobile.costs.counts import Macs
from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.nets.build import build
from dmask_mobile.records.space import load_space
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.checks import Agreement
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer, TrainSettings

NUM_IMAGES, SIZE, BATCH, STEPS = 2560, 64, 128, 12


def data() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    examples = ImageSet.in_memory(pixels, torch.arange(NUM_IMAGES) % 10)
    return ImageData("random", "random", tuple("abcdefghij"), examples, examples, (0.5,) * 3, (0.3,) * 3, False)


def images_per_second(steps: Any) -> float:
    """Of the second half of ``STEPS`` steps."""
    for _ in itertools.islice(steps, STEPS // 2):
        pass
    start = time.perf_counter()
    made = sum(1 for _ in itertools.islice(steps, STEPS // 2))
    return made * BATCH / (time.perf_counter() - start)


def measure() -> None:
    """In each process: prints what the main one measured."""
    machine, images = Machine(), data()
    space = load_space("mobilenet_small")
    settings = TrainSettings(batch_size=BATCH)
    trainer = Trainer(build(space.child(space.largest())), images, settings, machine)
    agreement = Agreement(machine, lambda: None)
    training = images_per_second(trainer.train_epoch(agreement))
    cost = Macs().on(space)
    found = cost.reachable()
    search = SearchSettings(batch_size=BATCH, resolution_mode="sampled", trials=0)
    searcher = Searcher(space, images, [Budget(cost, sum(found) / 2)], search, machine)
    searcher.state.noise.manual_seed(1)
    searching = images_per_second(searcher.train_weights(agreement))
    if machine.is_main:
        print(json.dumps({"training": training, "search": searching}))


def run(processes: int) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--measure"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure()
        return
    rounds = [(run(1), run(2)) for _ in range(options.rounds)]
    ratios = {kind: [two[kind] / one[kind] for one, two in rounds] for kind in ("training", "search")}
    result = {
        "ratio": {kind: statistics.median(found) for kind, found in ratios.items()},
        "ratios": ratios,
        "images_per_second": [{"one": one, "two": two} for one, two in rounds],
    }
    print(result["ratio"], result["images_per_second"])
    keep("two_processes", result, options.json)


if __name__ == "__main__":
    main()
