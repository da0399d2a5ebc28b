"""This machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latency_tables.devices.device import DeviceInfo, Loaded, Samples
from latency_tables.runtimes.runtime import Runner, Runtime

MIN_SAMPLES, MAX_SAMPLES = 5, 100
WARMUP_SHARE = 0.3  # of the sampling time


class _Ready:
    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def sample(self, seconds: float) -> Samples:
        run = self.runner.run
        wall_ms: list[float] = []
        cpu_ms: list[float] = []
        with pinned_to_one_core():
            end = time.perf_counter() + WARMUP_SHARE * seconds
            run()
            while time.perf_counter() < end:
                run()
            end = time.perf_counter() + seconds
            while len(wall_ms) < MIN_SAMPLES or (len(wall_ms) < MAX_SAMPLES and time.perf_counter() < end):
                cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
                run()
                wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
                cpu_ms.append((time.thread_time_ns() - cpu) / 1e6)
        return Samples(tuple(wall_ms), tuple(cpu_ms))


class LocalDevice:
    """`Device` for the machine that runs this process."""

    def describe(self) -> DeviceInfo:
        """Processor, operating system, number of cores."""
        return DeviceInfo(f"{_processor()} ({platform.machine()})", platform.system(), os.cpu_count() or 1)

    @contextmanager
    def load(self, runtime: Runtime, model: bytes, threads: int) -> Iterator[Loaded]:
        """The model in this process."""
        with runtime.open(model, threads) as runner:
            yield _Ready(runner)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


@contextmanager
def pinned_to_one_core() -> Iterator[None]:
    """Keeps the calling thread on the last of its cores, where the system allows it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
