"""Parses the log of ExecuTorch's ``executor_runner``; source:
``examples/portable/executor_runner/executor_runner.cpp``."""

from __future__ import annotations

import re
import statistics

from latency_tables.devices.native_log import END, NUMBER, Timing, check_one_run, whole_number

TOTAL = rf"Model executed successfully (\d+) time\(s\) in {NUMBER} ms\."
COLD = 1.5  # times the median; a first run that takes longer was cold


def parse_executor_runner(text: str, asked: str | None = None) -> Timing | None:
    """The median of the iterations, which a single cold run does not change; the average if they are not printed.

    None for anything but a complete log; the oldest versions print no time. ``asked``: the delegate, which the log does
    not contain, because models are delegated when they are exported.

    Raises:
        UnfitLogError: for several runs.
    """
    total = re.search(f"{TOTAL}{END}", text)
    if total is None or int(total[1]) == 0:
        return None
    check_one_run([TOTAL], text)
    runs, threads = int(total[1]), whole_number(r"num threads = (\d+)", text)
    each = [float(ms) for ms in re.findall(rf"Iteration \d+ of \d+: {NUMBER} ms{END}", text)]
    if not each:
        return Timing(float(total[2]) / runs, runs=runs, threads=threads, delegate=asked)
    median = statistics.median(each)
    warm = each[1:] if len(each) > 2 and each[0] > COLD * median else each
    deviation = statistics.stdev(warm) if len(warm) > 1 else None
    return Timing(median, deviation, figure="median", runs=runs, threads=threads, delegate=asked)
