"""Parses the log of ONNX Runtime's ``onnxruntime_perf_test``, old and new; source: ``onnxruntime/test/perftest``."""

from __future__ import annotations

import re

from latency_tables.devices.native_log import (
    NUMBER,
    Timing,
    UnfitLogError,
    check_one_run,
    check_real_gpu,
    first_line,
    number,
    whole_lines,
    whole_number,
)

AVERAGE = rf"Average (?:inference )?time cost(?: total)?: ?{NUMBER} ms"
MEDIAN = rf"P50 Latency(?: is|:) ?{NUMBER} ?s(?:ec)?"
ONCE = (AVERAGE, MEDIAN, r"Session creation time cost ?:")
COMMAND = r"onnxruntime_perf_test\S*(?: .*)?"
NOT_ALL = r"nodes were not assigned to the preferred execution providers"
NOT_USED = (
    r"[Ff]ailed to create \w*ExecutionProvider"
    r"|[Ff]all(?:ing)? ?back to .*CPU"
    r"|(?:execution provider|ExecutionProvider) .*(?:is not (?:supported|available|enabled)|not built)"
)
SUPPORTED = re.compile(r"number of nodes in the graph: (\d+),? number of nodes supported by \w+: (\d+)")


def parse_onnxruntime_perf_test(text: str, asked: str | None = None) -> Timing | None:
    """The median if it is printed, otherwise the average; no version prints a deviation. None for an incomplete log.

    ``asked``: the requested execution provider, if it is known without the log.

    Raises:
        UnfitLogError: for several runs, or if the requested provider did not run the whole model.
    """
    median_s, average_ms = number(MEDIAN, text), number(AVERAGE, text)
    if median_s is None and average_ms is None:
        return None
    check_one_run(ONCE, text)
    lines = whole_lines(text)
    provider = asked or _provider(text)
    _check_assigned(provider, lines)
    return Timing(
        ms=average_ms if median_s is None else median_s * 1e3,  # type: ignore[arg-type]  # one of them is there
        figure="average" if median_s is None else "median",
        runs=whole_number(r"Total (?:inference requests|iterations) ?: ?(\d+)", text)
        or whole_number(r"\bRuns ?: ?(\d+)", text),
        threads=whole_number(r"Setting intra_op_num_threads to (\d+)", text)
        or whole_number(rf"{COMMAND} -x ?(\d+)", text),
        delegate=provider,
    )


def _provider(text: str) -> str | None:
    """The execution provider in the command or the log."""
    found = re.search(rf"{COMMAND} -e ?(\w+)", text) or re.search(r"\busing (\w+?)ExecutionProvider", text)
    found = found or re.search(r"All nodes placed on \[(\w+?)ExecutionProvider\]", text)
    return found[1].lower() if found else None


def _check_assigned(provider: str | None, lines: list[str]) -> None:
    """Checks that the provider ran every node; the rest of XNNPACK's nodes also run on the CPU.

    Raises:
        UnfitLogError: quoting the line that shows otherwise.
    """
    if line := first_line(NOT_USED, lines):
        raise UnfitLogError("the execution provider was not used", line)
    for line in lines:
        found = SUPPORTED.search(line)
        part = re.search(NOT_ALL, line) or (found and int(found[2]) < int(found[1]))
        if part and provider not in ("cpu", "xnnpack"):
            raise UnfitLogError("the execution provider ran only a part of the model", line)
    if provider not in (None, "cpu", "xnnpack"):
        check_real_gpu(lines)
