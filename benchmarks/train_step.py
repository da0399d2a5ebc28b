"""How much time of a training step on the CPU our two changes to PyTorch's defaults save.

    python benchmarks/train_step.py [--json] [--rounds 5]

Steps (forward and backward pass, one thread, batches of 64) of the child of ``mobilenet_small`` with the median number
of multiply-adds among random ones, at 32 and 64 px: with PyTorch's depthwise convolutions and the C library's allocator
as it is (the baseline), with freed memory kept (`training/allocator.py`), and with small maps padded as well
(`nets/blocks.py`). Each runs in a process of its own, in turn. Writes ``benchmarks/results/train_step.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from record import keep
from torch import nn

from dmask_mobile.costs.counts import Macs
from dmask_mobile.nets import blocks
from dmask_mobile.nets.build import build
from dmask_mobile.records.space import load_space
from dmask_mobile.training.allocator import keep_freed_memory

WAYS = ("default", "memory", "memory_and_maps")
SIZES = (32, 64)
BATCH, CLASSES, WARM_UP, STEPS, CHILDREN = 64, 10, 5, 20, 21


def typical_child() -> nn.Module:
    """The child with the median number of multiply-adds among random ones."""
    space, drawn_by = load_space("mobilenet_small").with_classes(CLASSES), random.Random(0)
    children = [space.child(space.sample(drawn_by)) for _ in range(CHILDREN)]
    children.sort(key=lambda child: Macs().estimate(child).value)
    return build(children[CHILDREN // 2])


def step_seconds(way: str, size: int) -> float:
    """The CPU time of one step, a median."""
    torch.set_num_threads(1)
    if way != "default":
        keep_freed_memory()
    if way != "memory_and_maps":
        blocks.DepthwiseConv2d._conv_forward = nn.Conv2d._conv_forward  # type: ignore[method-assign]
    network = typical_child().train().to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES
    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.process_time()
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[WARM_UP:])


def measure(rounds: int) -> dict[str, Any]:
    """Milliseconds of each way by resolution, medians over rounds, and their ratios to the default."""
    found: dict[str, Any] = {}
    for size in SIZES:
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--one", way, str(size)]
                seconds[way].append(json.loads(subprocess.check_output(command, text=True)))
        pairs = {way: zip(seconds[way], seconds["default"], strict=True) for way in WAYS}
        ratios = {way: statistics.median(own / default for own, default in pairs[way]) for way in WAYS}
        found[f"{size}_px"] = {way: {"ms": 1e3 * statistics.median(seconds[way]), "ratio": ratios[way]} for way in WAYS}
    return {"batch": BATCH, "rounds": rounds, **found}


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(step_seconds(arguments.one[0], int(arguments.one[1]))))
        return
    keep("train_step", measure(arguments.rounds), arguments.json)


if __name__ == "__main__":
    main()
