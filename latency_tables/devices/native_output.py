"""What the runtimes' own benchmark programs print, as milliseconds.

LiteRT's ``benchmark_model``, ONNX Runtime's ``onnxruntime_perf_test``, ExecuTorch's ``executor_runner``, ncnn's
``benchncnn``; and a record of ours for figures that no program prints (Xcode's performance report for Core ML: its
exported file is not documented, so its median is written into such a record by hand).
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import Field

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import ModelFormat
from dmask_mobile.records.base import FileRecord

END = r"[ \t\r]*\n"  # a line that was cut off may end in the middle of a number
NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"


class Timing(NamedTuple):
    """Milliseconds of one inference, and their standard deviation where the program tells it."""

    ms: float
    deviation_ms: float = 0.0


class Measurement(FileRecord):
    """A latency that was measured elsewhere.

    ``source``: device, tool and version, in words; ``deviation_ms``: standard deviation, where it is known.
    """

    file_format: ClassVar[str] = "dmask-measurement"

    model_format: ModelFormat
    ms: float = Field(gt=0)
    deviation_ms: float = Field(default=0.0, ge=0)
    source: str = Field(min_length=1)


def parse_benchmark_model(text: str) -> Timing | None:
    """LiteRT's ``benchmark_model``: the inference line; the deviation from the last line of samples."""
    average = _last(rf"Inference timings in us:.*Inference \(avg\): {NUMBER}{END}", text)
    if average is None:
        average = _last(rf"Average inference timings in us:.*Inference: {NUMBER}{END}", text)
    if average is None:
        return None
    samples = re.findall(
        rf"count=\d+ first=\d+ curr=\d+ min=\d+ max=\d+ avg={NUMBER} std={NUMBER}(?: .*)?{END}", text, re.M
    )
    return Timing(average / 1e3, float(samples[-1][1]) / 1e3 if samples else 0.0)


def parse_onnxruntime_perf_test(text: str) -> Timing | None:
    """ONNX Runtime's ``onnxruntime_perf_test``: the median where it is told, else the average."""
    median_s = _last(rf"P50 Latency: {NUMBER} s{END}", text)
    if median_s is not None:
        return Timing(median_s * 1e3)
    average = _last(rf"Average inference time cost(?: total)?: {NUMBER} ms{END}", text)
    if average is None:
        average = _last(rf"Average time cost: ?{NUMBER} ms{END}", text)
    return None if average is None else Timing(average)


def parse_executor_runner(text: str) -> Timing | None:
    """ExecuTorch's ``executor_runner``: the median of its iterations, else its total by their number."""
    each = [float(ms) for ms in re.findall(rf"Iteration \d+ of \d+: {NUMBER} ms{END}", text, re.M)]
    total = re.search(rf"Model executed successfully (\d+) time\(s\) in {NUMBER} ms\.{END}", text)
    if total is None or int(total[1]) == 0:
        return None
    if each:
        return Timing(statistics.median(each), statistics.stdev(each) if len(each) > 1 else 0.0)
    return Timing(float(total[2]) / int(total[1]))


def parse_benchncnn(text: str) -> Timing | None:
    """ncnn's ``benchncnn``: the average of its one network."""
    found = re.findall(rf"^\s*\S+\s+min = +{NUMBER} +max = +{NUMBER} +avg = +{NUMBER}{END}", text, re.M)
    return Timing(float(found[0][2])) if len(found) == 1 else None


PARSERS: dict[str, tuple[ModelFormat, Callable[[str], Timing | None]]] = {
    "benchmark_model": ("litert", parse_benchmark_model),
    "onnxruntime_perf_test": ("onnx", parse_onnxruntime_perf_test),
    "executor_runner": ("executorch", parse_executor_runner),
    "benchncnn": ("ncnn", parse_benchncnn),
}


def read_measurement(path: Path) -> Measurement:
    """The latency in a file: a `Measurement`, or what one of the programs printed.

    Raises:
        DmaskError: when it holds neither, or a latency of 0.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DmaskError(f"cannot read '{path}': {error.strerror}", "give the output of a benchmark program") from error
    if text.lstrip().startswith("{"):
        return Measurement.read(path)
    for program, (model_format, parse) in PARSERS.items():
        timing = parse(text)
        if timing is not None:
            if not timing.ms > 0:
                raise DmaskError(f"'{path}': {program} says {timing.ms:g} ms", "measure again, with more runs")
            return Measurement(
                model_format=model_format,
                ms=timing.ms,
                deviation_ms=timing.deviation_ms,
                source=f"{program}, {path.name}",
            )
    example = json.dumps({"format": "dmask-measurement", "version": 1, "model_format": "coreml", "ms": 1.5})
    raise DmaskError(
        f"'{path}' is no complete output of {', '.join(PARSERS)}",
        f'give one, or a record like {example[:-1]}, "source": "Xcode 17, iPhone 15"}}',
    )


def _last(pattern: str, text: str) -> float | None:
    found = re.findall(pattern, text, re.M)
    return float(found[-1]) if found else None
