"""Peak memory of a search and a training on photographs, and its growth with the number of images beyond the limit.

    python benchmarks/data_memory.py DIR [--json] [--size 160]

It uses the space ``demo`` at 160 px for one epoch. Each figure is the peak resident memory of a separate process for
the command, without its workers (which are listed separately). ``DIR``: class folders in ``train`` and ``val``. The
first run uses the default memory limit and all images; the next ones use a limit of 100 MiB and a quarter, a half and
all of the images. The script writes ``benchmarks/results/data_memory.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import keep

from dmask_mobile.costs.counts import Macs
from dmask_mobile.data.load import load_data
from dmask_mobile.nets.build import build
from dmask_mobile.records.data import GIB, DataOptions
from dmask_mobile.records.space import load_space
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.checks import Agreement
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer, TrainSettings


def epoch(what: str, folder: str, size: int, memory_bytes: int) -> None:
    """One epoch at ``size`` pixels in batches of 32 (search: 16), and its peak memory as JSON."""
    torch.set_num_threads(1)
    data = load_data(f"folder:{folder}", size, DataOptions(memory_bytes=memory_bytes, workers=1))
    demo = load_space("demo").with_classes(data.classes)
    space = demo.model_copy(update={"input": demo.input.model_copy(update={"resolutions": (size,)})})
    machine = Machine()
    agreement = Agreement(machine, lambda: None)
    if what == "train":
        trainer = Trainer(build(space.child(space.smallest())), data, TrainSettings(epochs=2, batch_size=32), machine)
        for _ in trainer.train_epoch(agreement):
            pass
        trainer.finish_epoch()
    else:
        cost = Macs().on(space)
        budget = Budget(cost, sum(cost.reachable()) / 2)
        settings = SearchSettings(epochs=2, warmup=0, min_gate_steps=1, batch_size=16, trials=0)
        searcher = Searcher(space, data, [budget], settings, machine)
        for _ in (*searcher.train_weights(agreement), *searcher.train_gates(agreement)):
            pass
    own, workers = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"num_images": len(data.train), "peak_bytes": own, "largest_worker_bytes": workers}))


def run(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--epoch", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(arguments, found)
    return found


def part_of(folder: Path, share: float, target: Path) -> Path:
    """A folder with links to a part of each class's training images, and few validation images."""
    for split, most in (("train", share), ("val", 0.1)):
        for kind in sorted((folder / split).iterdir()):
            images = sorted(kind.iterdir())
            (target / split / kind.name).mkdir(parents=True)
            for image in images[: round(most * len(images))]:
                os.link(image, target / split / kind.name / image.name)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--epoch", nargs=4, help=argparse.SUPPRESS)
    if "--epoch" in sys.argv:
        what, folder, size, memory_bytes = sys.argv[2:]
        epoch(what, folder, int(size), int(memory_bytes))
        return
    options = parser.parse_args()
    whole = {what: run(what, options.folder, options.size, 2 * GIB) for what in ("train", "search")}
    by_number = []
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as scratch:
        for share in (0.25, 0.5, 1.0):
            part = part_of(options.folder, share, Path(scratch) / f"{share}")
            by_number.append(run("train", part, options.size, 100 * 2**20))
    keep("data_memory", {"size": options.size, "limit_2_gib": whole, "limit_100_mib": by_number}, options.json)


if __name__ == "__main__":
    main()
