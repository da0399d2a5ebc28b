"""What the gates cost: supernet weight steps against plain training of the widest child, same batch, one run.

    python benchmarks/supernet_overhead.py [--json] [--steps 20] [--batch 32]

Steps alternate (plain, supernet, plain, ...); a ratio is the median over the paired steps of their CPU times on one
thread. Peak memory is that of a process of its own for each side, above what it held before its first step. Writes
``benchmarks/results/supernet_overhead.json``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from record import keep
from torch import nn

from dmask_mobile.costs.counts import Macs
from dmask_mobile.nets.build import build
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.search.derive import derive
from dmask_mobile.search.sampled_resolution import SampledResolution
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.supernet import MaskedSupernet

OPTIONS = (2, 8, 16, 32)
STAGES = ((1, 32, 1, "relu"), (2, 40, 2, "relu"), (3, 64, 2, "hswish"), (3, 128, 2, "hswish"))
RESOLUTION, CLASSES = 64, 100
RESOLUTIONS = (36, 40, 44, 48, 52, 56, 60, 64)
Step = Callable[[], None]


def space_with(num_options: int, resolutions: tuple[int, ...] = (RESOLUTION,)) -> SearchSpace:
    """The same widest network whatever the number of width and expansion options; every other gate on."""

    def spread(largest: float, smallest: float) -> list[float]:
        return [smallest + (largest - smallest) * i / (num_options - 1) for i in range(num_options)]

    def widths(largest: int) -> list[int]:
        return [int(width) for width in spread(largest, max(1, largest - 31))]

    return SearchSpace.model_validate(
        {
            "name": f"options-{num_options}",
            "classes": CLASSES,
            "input": {"resolutions": resolutions},
            "stem": {"widths": widths(32), "stride": 2},
            "stages": [
                {"blocks": blocks, "widths": widths(width), "stride": stride, "expansions": spread(4.0, 0.9),
                 "kernels": [3, 5], "squeeze_excite": [False, True], "activation": activation, "skip": True}
                for blocks, width, stride, activation in STAGES
            ],
            "last": {"widths": widths(512)},
        }
    )  # fmt: skip


def training_step(network: nn.Module, forward: Callable[[], torch.Tensor], labels: torch.Tensor) -> Step:
    """One ordinary weight step: forward, cross-entropy, backward, SGD."""
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        loss = F.cross_entropy(forward(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def batch_of(batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, CLASSES, (batch,), generator=generator)


def plain_step(space: SearchSpace, batch: int, size: int | None = None) -> Step:
    images, labels = batch_of(batch, size or space.resolution)
    network = build(space.child(space.largest()))
    return training_step(network, lambda: network(images), labels)


def supernet_step(space: SearchSpace, batch: int) -> Step:
    images, labels = batch_of(batch, space.resolution)
    supernet, logits = MaskedSupernet(space), GateLogits(space)
    noise = torch.Generator().manual_seed(1)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            gates = logits.sample(1.0, noise)
        scores: torch.Tensor = supernet(images, gates)
        return scores

    return training_step(supernet, forward, labels)


def paired_ratio(plain: Step, other: Step, steps: int) -> tuple[float, float]:
    """Median ratio of the CPU times of alternating steps, and the plain step's median seconds."""
    times: list[tuple[float, float]] = []
    for number in range(steps + 3):
        pair = []
        for step in (plain, other):
            start = time.thread_time()
            step()
            pair.append(time.thread_time() - start)
        if number >= 3:  # the first steps allocate
            times.append((pair[0], pair[1]))
    return statistics.median(b / a for a, b in times), statistics.median(a for a, _ in times)


def resolution_ratio(steps: int, batch: int) -> float:
    """The sampled mode's mean step over that of plain steps at the same resolutions; medians at each of them."""
    space = space_with(OPTIONS[1], RESOLUTIONS)
    images, labels = batch_of(batch, space.resolution)
    supernet, logits, noise = MaskedSupernet(space), GateLogits(space), torch.Generator().manual_seed(1)
    drawn = 0

    def forward() -> torch.Tensor:
        with torch.no_grad():
            gates = logits.sample(1.0, noise)
        SampledResolution().draw(gates, logits, noise)  # its price; which one comes next is fixed below
        one_hot = F.one_hot(torch.tensor(drawn), len(RESOLUTIONS)).float()
        scores: torch.Tensor = supernet(images, (one_hot, *gates[1:]))
        return scores

    sampled = training_step(supernet, forward, labels)
    plain_of, sampled_of = [], []
    for drawn, size in enumerate(RESOLUTIONS):  # noqa: B007 - forward reads it
        ratio, plain_seconds = paired_ratio(plain_step(space, batch, size), sampled, steps)
        plain_of.append(plain_seconds)
        sampled_of.append(ratio * plain_seconds)
    return sum(sampled_of) / sum(plain_of)


def derivation_seconds() -> float:
    """The longest derivation on fbnetv2_f under one budget: three places in its range, random gates."""
    space = load_space("fbnetv2_f")
    cost, random, seconds = Macs().on(space), np.random.default_rng(0), []
    low, high = cost.reachable()
    for place in (0.25, 0.5, 0.75):
        probabilities = [random.dirichlet(np.ones(len(d.options))) for d in space.decisions]
        start = time.thread_time()
        derive(cost, probabilities, low + place * (high - low))
        seconds.append(time.thread_time() - start)
    return max(seconds)


def peak_bytes(make: str, num_options: int, batch: int) -> int:
    """Peak memory of three steps in a fresh process, above what it held before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (make, num_options, batch))


def _peak_here(make: str, num_options: int, batch: int) -> int:
    torch.set_num_threads(1)
    # ru_maxrss would carry over the parent's peak; the kernel's own high-water mark can be reset (Linux only).
    before = _resident_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step = {"plain": plain_step, "supernet": supernet_step}[make](space_with(num_options), batch)
    for _ in range(3):
        step()
    return (_resident_kib("VmHWM") - before) * 1024


def _resident_kib(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0])


def cost_share(step_seconds: float) -> float:
    """Forward and backward of fbnetv2_f's expected cost as a share of a weight step."""
    space = load_space("fbnetv2_f")
    cost, logits = Macs().on(space), GateLogits(space)
    times = []
    for _ in range(20):
        start = time.thread_time()
        torch.log(cost.expected(logits.probabilities())).backward()
        times.append(time.thread_time() - start)
    return statistics.median(times) / step_seconds


def measure(steps: int, batch: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    for num_options in OPTIONS:
        space = space_with(num_options)
        ratios[str(num_options)], _ = paired_ratio(plain_step(space, batch), supernet_step(space, batch), steps)
    plain, masked = peak_bytes("plain", OPTIONS[-1], batch), peak_bytes("supernet", OPTIONS[-1], batch)
    reference = load_space("fbnetv2_f")
    images, labels = batch_of(batch, reference.resolution)
    network = build(reference.with_classes(CLASSES).child(reference.largest()))
    full = training_step(network, lambda: network(images), labels)
    full()
    start = time.thread_time()
    full()
    return {
        "step_time_ratio": ratios,
        "largest_to_smallest": max(ratios.values()) / min(ratios.values()),
        "memory_ratio": masked / plain,
        "cost_share": cost_share(time.thread_time() - start),
        "resolution_step_ratio": resolution_ratio(steps, batch),
        "derivation_seconds": derivation_seconds(),
        "steps": steps,
        "batch": batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--steps", type=int, default=20, help="paired steps")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    arguments = parser.parse_args()
    result = measure(arguments.steps, arguments.batch)
    keep("supernet_overhead", result, arguments.json)
    if arguments.json:
        return
    for num_options, ratio in result["step_time_ratio"].items():
        print(f"{num_options:>3} options: {ratio:.3f} times the plain step")
    print(f"largest / smallest {result['largest_to_smallest']:.3f}, memory {result['memory_ratio']:.3f} times")
    print(
        f"sampled resolution, {len(RESOLUTIONS)} of them: {result['resolution_step_ratio']:.3f} times the plain steps"
    )
    print(f"expected cost of fbnetv2_f: {result['cost_share']:.2%} of its step")
    print(f"derivation on fbnetv2_f: at most {result['derivation_seconds']:.1f} s")


if __name__ == "__main__":
    main()
