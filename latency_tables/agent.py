"""The program that runs models and takes times: a process of its own, driven by JSON lines.

Self-contained: the standard library and the runtime, so that the same file works on another machine. A crash or a hang
of a runtime ends this process and nothing else. Started as ``python -P agent.py RUNTIME THREADS``, it pins itself to
the last of its cores (as many as threads) and answers each line on stdin with one on stdout:

    {"do": "load", "key": "a", "path": "model.onnx"}     {}
    {"do": "sample", "key": "a", "seconds": 0.02}        {"wall_ms": [...], "cpu_ms": [...]}
    {"do": "unload", "key": "a"}                         {}

An error that the runtime reports is answered with ``{"error": "..."}``.
"""

import json
import os
import statistics
import sys
import time

MIN_SAMPLES, MAX_SAMPLES = 5, 30
ERROR, MOST_SAMPLES, MOST_SECONDS = 0.01, 100, 4  # of the median; runs and multiples of the time to reach it
STEADY = 0.05


def open_onnxruntime(path, threads):
    """A function that runs the model once, its buffers bound: copying them in and out would count with every block."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Many models are loaded at once: without this, the idle thread pool of the one that ran last spins beside the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    (tensor,) = session.get_inputs()
    binding.bind_cpu_input(tensor.name, numpy.random.default_rng(0).random(tensor.shape, dtype=numpy.float32))
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


OPENERS = {"onnxruntime": open_onnxruntime}


def sample(run, seconds):
    """Warms up until steady, then runs for about ``seconds``: five times at least, thirty at most.

    Where the median is not known to 1% by then, on for at most four times as long and a hundred runs.
    """
    warm_up(run, seconds)
    wall_ms = []  # type: list[float]
    cpu_ms = []  # type: list[float]
    start = time.perf_counter()
    while True:
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        run()
        wall_ms.append(round((time.perf_counter_ns() - wall) / 1e6, 5))
        cpu_ms.append(round((time.thread_time_ns() - cpu) / 1e6, 5))
        elapsed, count = time.perf_counter() - start, len(wall_ms)
        if count < MIN_SAMPLES or (count < MAX_SAMPLES and elapsed < seconds):
            continue
        if count >= MOST_SAMPLES or elapsed >= MOST_SECONDS * seconds or median_error(wall_ms) <= ERROR:
            return {"wall_ms": wall_ms, "cpu_ms": cpu_ms}


def warm_up(run, seconds):
    """Runs until three runs take as long as the three before, within 5%; for at most ``seconds``."""
    times = []  # type: list[float]
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        if len(times) >= 6 and abs(statistics.median(times[-3:]) / statistics.median(times[-6:-3]) - 1) <= STEADY:
            return


def median_error(values):
    """The standard error of the median as a share of it, from the median absolute deviation (normal samples)."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return 1.2533 * deviation / len(values) ** 0.5 / middle


def pin(threads):
    """Keeps this process on the last ``threads`` of its cores, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def main():
    """Answers until stdin ends."""
    runtime, threads = sys.argv[1], int(sys.argv[2])
    pin(threads)
    models = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {}
            if order["do"] == "load":
                models[order["key"]] = OPENERS[runtime](order["path"], threads)
            elif order["do"] == "unload":
                models.pop(order["key"], None)
            else:
                answer = sample(models[order["key"]], order["seconds"])
        except Exception as error:  # whatever a runtime raises, the next model must still be measured
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
