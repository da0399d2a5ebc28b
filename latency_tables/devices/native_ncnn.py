"""Parses the log of ncnn's ``benchncnn``; sources: ``benchmark/benchncnn.cpp`` and ``src/gpu.cpp``.

The program continues after every error, and a model that could not be loaded takes no time.
"""

from __future__ import annotations

import re

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

RESULT = rf"\S+[ \t]+min = +{NUMBER} +max = +{NUMBER} +avg = +{NUMBER}"
FAILED = (
    r"\bfailed\b|not exists or registered|error at layer|network graph not ready|inconsistent content"
    r"|is too old, please regenerate|out of memory"
)
VULKAN = r"vulkan|\bvk[A-Z]|\bgpu\b"


def parse_benchncnn(text: str, asked: str | None = None) -> Timing | None:
    """The average of its one network, without a deviation. None for anything but a complete log.

    ``asked``: cpu, or gpu for the Vulkan device 0, if it is known without the log.

    Raises:
        UnfitLogError: for several networks or runs, for a model that ncnn could not find or load, or for a requested
            GPU that was not used.
    """
    found = re.findall(f"{RESULT}{END}", text)
    if not found:
        return None
    check_one_run([RESULT, r"loop_count = "], text)
    lines = whole_lines(text)
    device = {None: _device(text), "cpu": -1}.get(asked, 0)
    on_cpu = device is not None and device < 0
    failed = [line for line in lines if re.search(FAILED, line)]
    if failed := [line for line in failed if not (on_cpu and re.search(VULKAN, line, re.I))]:
        raise UnfitLogError("ncnn continued after an error", failed[0])
    if not on_cpu:
        check_real_gpu(lines if device is None else _of_device(device, lines))
    if device is not None and not on_cpu:
        _check_vulkan(device, lines)
    return Timing(
        ms=float(found[0][2]),
        runs=whole_number(r"loop_count = (\d+)", text),
        threads=whole_number(r"num_threads = (\d+)", text),
        delegate=None if device is None else "cpu" if on_cpu else "gpu",
    )


def _device(text: str) -> int | None:
    """The requested Vulkan device; negative for none."""
    found = re.search(r"gpu_device = (-?\d+)", text)
    return int(found[1]) if found else None


def _of_device(number: int, lines: list[str]) -> list[str]:
    """The lines about one Vulkan device, which begin with its number and name, and the lines about no device."""
    return [line for line in lines if not re.match(r"\s*\[\d+ ", line) or re.match(rf"\s*\[{number} ", line)]


def _check_vulkan(number: int, lines: list[str]) -> None:
    """Checks that ncnn opened the requested Vulkan device; it then prints the device's queues.

    Raises:
        UnfitLogError: if it did not.
    """
    if none := first_line(r"no vulkan device|invalid gpu|vkCreate\w+ failed", lines):
        raise UnfitLogError("a GPU was requested, but none was used", none)
    if not any(re.match(rf"\s*\[{number} .*\]\s+queueC=", line) for line in lines):
        raise UnfitLogError(
            f"a GPU was asked for, and no line '[{number} NAME]  queueC=' shows that Vulkan was used",
            first_line(r"gpu_device = ", lines) or first_line(RESULT, lines) or "",
            "use a benchncnn that was built with Vulkan, and keep its whole log",
        )
