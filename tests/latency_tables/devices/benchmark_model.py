"""LiteRT behind the command line and the output of its ``benchmark_model``: python benchmark_model.py NEW|OLD FLAGS.

Flags that the real program does not know end it, as there.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import TextIO

import numpy as np

DEFAULTS = {
    "graph": "",
    "num_threads": "-1",
    "num_runs": "50",
    "min_secs": "1",
    "max_secs": "150",
    "warmup_runs": "1",
    "warmup_min_secs": "0.5",
    "use_xnnpack": "true",
    "use_gpu": "false",
    "use_nnapi": "false",
    "enable_op_profiling": "false",
}


def say(text: str, file: TextIO = sys.stdout) -> None:
    file.write(text + "\n")


def run(invoke: Callable[[], object], runs: int, seconds: float, most: float) -> list[int]:
    """Microseconds of each run: so many, and for so long, but for no longer than ``most``."""
    times: list[int] = []
    start = time.perf_counter()
    while len(times) < runs or time.perf_counter() - start < seconds:
        if time.perf_counter() - start > most:
            break
        before = time.perf_counter()
        invoke()
        times.append(round((time.perf_counter() - before) * 1e6))
    deviation = statistics.pstdev(times)
    spread = f"count={len(times)} first={times[0]} curr={times[-1]} min={min(times)} max={max(times)}"
    say(f"INFO: {spread} avg={statistics.mean(times):g} std={deviation:.0f}")
    return times


def main(form: str, arguments: list[str]) -> int:
    given = dict(word.removeprefix("--").partition("=")[::2] for word in arguments)
    if set(given) - set(DEFAULTS):
        say(f"usage: benchmark_model <flags>: unknown {sorted(set(given) - set(DEFAULTS))}", file=sys.stderr)
        return 1
    flags = DEFAULTS | given
    say("INFO: STARTING!")
    from ai_edge_litert.interpreter import Interpreter

    start = time.perf_counter()
    try:
        interpreter = Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
        interpreter.allocate_tensors()
    except ValueError as error:
        say(f"ERROR: Failed to load model {flags['graph']}: {error}", file=sys.stderr)
        return 1
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.ones(tensor["shape"], tensor["dtype"]))
    init = round((time.perf_counter() - start) * 1e6)
    most = float(flags["max_secs"])
    warm_up = run(interpreter.invoke, int(flags["warmup_runs"]), float(flags["warmup_min_secs"]), most)
    times = run(interpreter.invoke, int(flags["num_runs"]), float(flags["min_secs"]), most)
    warm, average = statistics.mean(warm_up), statistics.mean(times)
    if form == "OLD":
        say(f"Average inference timings in us: Warmup: {warm:g}, Init: {init}, Inference: {average:g}")
    else:
        first = f"Init: {init}, First inference: {warm_up[0]}"
        say(f"INFO: Inference timings in us: {first}, Warmup (avg): {warm:g}, Inference (avg): {average:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
