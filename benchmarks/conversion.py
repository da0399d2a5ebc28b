"""What does converting a block cost, by the official converter and by structure?

    python benchmarks/conversion.py [RUNTIME ...] [--blocks 10] [--json]

For each runtime, one process converts random blocks of mobilenet_small in both ways, and one whole network. The figures
are seconds of CPU time, also of the converters' programs, so that other work on the machine hardly changes them. The
first conversion of a process also loads the converter, and the first of a structure is that of its template. The script
writes ``benchmarks/results/conversion_RUNTIME.json``.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from record import keep

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.space import load_space
from latency_tables.conversion.inside import block_module
from latency_tables.conversion.structures import structure_of
from latency_tables.conversion.subjects import convert_subject
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.runtimes.registry import runtime_named
from latency_tables.runtimes.runtime import Runtime
from latency_tables.table.rows import BlockAt

SPACE = "mobilenet_small"
RUNTIMES = ("litert", "executorch", "ncnn")


def cpu_seconds(work: Callable[[], object]) -> float:
    """The CPU seconds of this process and of programs that it waits for."""
    before = _cpu_seconds_so_far()
    work()
    return _cpu_seconds_so_far() - before


def _cpu_seconds_so_far() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(times.ru_utime + times.ru_stime for times in used)


def convert_alone(located: BlockAt, runtime: Runtime) -> None:
    """Converts a block by the official converter."""
    block, in_size = located
    module, shape = build_block(block).eval(), (1, block.in_width, in_size, in_size)
    if runtime.nhwc_inside:
        runtime.convert(*block_module(module, block, in_size), "fp32")
    else:
        runtime.convert(module, shape, "fp32")


def measure(name: str, num_blocks: int) -> dict[str, Any]:
    """CPU seconds by what is converted and how."""
    runtime, space = runtime_named(name), load_space(SPACE)
    everything = blocks_of(space)
    wanted = random.Random(0).sample(everything, num_blocks)
    firsts = {structure_of(*located): located for located in wanted}.values()
    first_of_all = cpu_seconds(lambda: convert_alone(wanted[0], runtime))
    return {
        "blocks": num_blocks,
        "structures_of_space": len({structure_of(*located) for located in everything}),
        "first_of_process_s": first_of_all,
        "alone_s": [cpu_seconds(lambda at=at: convert_alone(at, runtime)) for at in wanted],
        "first_of_structure_s": [cpu_seconds(lambda at=at: convert_subject(at, runtime, "fp32")) for at in firsts],
        "by_structure_s": [cpu_seconds(lambda at=at: convert_subject(at, runtime, "fp32")) for at in wanted],
        "network_s": cpu_seconds(lambda: convert_subject(networks_of(space)[2], runtime, "fp32")),
    }


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runtimes", nargs="*", default=RUNTIMES)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    for runtime in arguments.runtimes:
        result = measure(runtime, arguments.blocks)
        keep(f"conversion_{runtime}", result, arguments.json)
        for key in ("first_of_process_s", "alone_s", "first_of_structure_s", "by_structure_s", "network_s"):
            print(f"{runtime:>12} {key:>20} {statistics.median(np.atleast_1d(result[key])):.4f}", flush=True)


if __name__ == "__main__":
    main()
