"""Parses the log of LiteRT's ``benchmark_model``: TensorFlow 1.x, TensorFlow 2.x and LiteRT 1.x, LiteRT 2.x.

Sources: ``lite/tools/benchmark/benchmark_model.cc`` and ``benchmark_tflite_model.cc`` of TensorFlow,
``litert/tools/benchmark_litert_model.h`` of LiteRT. Every run prints the statistics of the warm-up, then those of the
timed runs (``count=...``), then its result. Operator profiling adds further statistics.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from latency_tables.devices.native_log import (
    END,
    NUMBER,
    Timing,
    UnfitLogError,
    check_one_run,
    check_real_gpu,
    first_line,
    whole_lines,
    whole_number,
)

RESULTS = (  # microseconds, except for the last one
    rf"Inference timings in us: .*Inference \(avg\): {NUMBER}",
    rf"Average inference timings in us: .*(?:Inference|no stats): {NUMBER}",
    rf"Inference \(avg\): +{NUMBER} ms \(\d+ runs\)",
)
STATISTICS = re.compile(
    r"^(?!.*(?:Timings|Memory) \()(?:.*\W)?"
    rf"count=(?P<count>\d+) (?:curr=(?P<same>\d+)|first=\d+ .*\bavg={NUMBER} std={NUMBER})"
    r"(?:\s*\(all same\))?(?: p5=.*)?$"
)
HARDWARE = ("gpu", "nnapi", "npu", "hexagon", "coreml", "edgetpu")
ASKED = re.compile(
    r"\bUse (\w+) ?: ?\[1\]|--use_(\w+)=(?:true|1)\b|\bdelegate for (\w+)|(?:Explicitly applied|Though) (\w+) delegate"
    r"|(\w+) (?:delegate created|acceleration is unsupported)|with delegate \(TfLite(Gpu|Nnapi|Hexagon|CoreMl|EdgeTpu)",
    re.I,
)
TAKEN = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")
CPU_DELEGATE = "XNNPack"
CPU_RAN_IT = "benchmark_model ran it on the CPU: the delegate ran no part of it"
ROUNDING_MS = 0.00501  # of the results of LiteRT 2.x
FAILED = (
    r"acceleration is unsupported on this platform"
    r"|[Ff]ailed to (?:create|apply|load|initialize|register|compile).*(?:delegate|accelerator|dispatch|NPU|GPU)"
    r"|[Cc]ould ?n[o']t (?:create|apply|load).*(?:delegate|accelerator)|accelerator could not be"
    r"|No (?:usable )?[Dd]ispatch (?:runtime|library) found"
    r"|nnapi error: |NNAPI acceleration is not available"
    r"|[Ff]all(?:ing)? ?back to (?:the )?(?:CPU|XNNPACK)"
)
REFERENCE = r"NNAPI accelerators? ?(?:available|name)?: \[nnapi-reference\]"  # Android's own, on the CPU


class Statistics(NamedTuple):
    """The microseconds of the runs in one line."""

    runs: int
    average: float
    deviation: float | None


def parse_benchmark_model(text: str, asked: str | None = None) -> Timing | None:
    """The average of the timed runs; None for anything but a complete log.

    ``asked``: the requested delegate, if it is known without the log.

    Raises:
        UnfitLogError: for several runs, or if the requested delegate did not run the whole model.
    """
    results = [[float(ms) for ms in re.findall(f"{result}{END}", text)] for result in RESULTS]
    found = [values[-1] * scale for values, scale in zip(results, (1e-3, 1e-3, 1.0), strict=True) if values]
    if not found:
        return None
    check_one_run([*RESULTS, r"(?:^|: )STARTING!"], text)
    lines = whole_lines(text)
    if max(found) - min(found) > ROUNDING_MS:
        raise UnfitLogError(
            "the log contains two results", first_line(RESULTS[2], lines) or "", "give the log of one run"
        )
    statistics = _statistics(lines, found[0])
    return Timing(
        ms=found[0] if statistics is None else statistics.average / 1e3,
        deviation_ms=None if statistics is None or statistics.deviation is None else statistics.deviation / 1e3,
        runs=statistics.runs if statistics else whole_number(r"Inference \(avg\): .* ms \((\d+) runs\)", text),
        threads=whole_number(r"(?:Num threads ?: |#threads used for CPU inference: )\[(\d+)\]", text)
        or whole_number(r"--num_threads=(\d+)", text),
        delegate=_delegate(lines, _asked(lines) if asked is None else [asked]),
    )


def _statistics(lines: list[str], ms: float) -> Statistics | None:
    """The line of statistics that belongs to the result; those of warm-up and profiler have other averages."""
    for found in reversed([found for found in map(STATISTICS.match, lines) if found]):
        runs, same, average, deviation = int(found["count"]), found["same"], found[3], found[4]
        told = Statistics(runs, float(same or average), None if runs == 1 else float(deviation or 0))
        if abs(told.average / 1e3 - ms) <= max(ROUNDING_MS, 1e-5 * ms):
            return told
    return None


def _delegate(lines: list[str], asked: list[str]) -> str | None:
    """The backend of the whole model, if it is the requested one.

    Raises:
        UnfitLogError: if it is not the requested one.
    """
    if asked == ["cpu"]:
        return "cpu"
    if not asked:
        told = first_line(r"STARTING!|XNNPACK delegate|\bUse \w+ ?: ?\[0\]", lines)
        return None if told is None else "cpu"
    completely = first_line(r"(?:completely|fully) executed (?:by|w/|with) the delegate", _without_cpu(lines))
    used = next((name for name in asked if completely and re.search(name, completely, re.I)), asked[0])
    if used == "gpu":
        check_real_gpu(lines)
    if used == "nnapi" and (reference := first_line(REFERENCE, lines)):
        raise UnfitLogError("NNAPI's own reference runs on the CPU", reference)
    if completely is None:
        if failed := first_line(FAILED, [line for line in _without_cpu(lines) if _is_about(asked, line)]):
            raise UnfitLogError(CPU_RAN_IT, failed)
        _check_taken(used, lines)
    return used


def _is_about(asked: list[str], line: str) -> bool:
    """Whether a line names no other hardware; LiteRT 2.x always lists the available accelerators."""
    words = line.lower().replace("dispatch", "npu")
    named = {name for name in HARDWARE if name in words}
    return not named or bool(named & set(asked))


def _asked(lines: list[str]) -> list[str]:
    """The requested delegates for other hardware than the CPU, in the order of the log."""
    words = [word.lower() for line in lines for found in ASKED.findall(line) for word in found if word]
    external = [
        "external" for line in lines if re.search(r"External delegate path ?: ?\[.+\]|--external_delegate_path=.", line)
    ]
    return list(dict.fromkeys([*(word for word in words if word in HARDWARE), *external]))


def _check_taken(asked: str, lines: list[str]) -> None:
    """Checks that a delegate ran every node.

    Raises:
        UnfitLogError: quoting the line with the number of its nodes, or with another delegate.
    """
    other = _without_cpu(lines)
    if none := first_line(r"model graph will not be executed|is not (?:fully )?accelerated", other):
        raise UnfitLogError(CPU_RAN_IT, none)
    if part := first_line(r"(?:will be |is )partially (?:executed|accelerated)", other):
        raise UnfitLogError(f"benchmark_model ran only a part of it on the delegate ({asked})", part)
    taken = [(int(n[1]), int(n[2]), n[3], line) for line in lines if (n := TAKEN.search(line))]
    real = [(some, all_, line) for some, all_, name, line in taken if CPU_DELEGATE.lower() not in name.lower()]
    for some, all_, line in real:
        if some < all_:
            raise UnfitLogError(f"benchmark_model ran only a part of it on the delegate ({asked})", line)
    if taken and not real:
        raise UnfitLogError(CPU_RAN_IT, taken[0][3])


def _without_cpu(lines: list[str]) -> list[str]:
    """The lines that are not about XNNPACK, which runs the rest of another delegate's nodes on the CPU."""
    return [line for line in lines if "xnnpack" not in line.lower()]
