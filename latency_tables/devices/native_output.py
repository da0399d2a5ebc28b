"""Latencies that were measured elsewhere: output of the runtimes' benchmark programs, or a record in our format.

The record is for figures that no program prints, such as Xcode's performance report for Core ML. Its exported file is
not documented, so its median must be written into such a record by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import read_bytes
from dmask_mobile.records.artifact import ModelFormat, Precision
from dmask_mobile.records.base import FileRecord
from latency_tables.devices.native_executorch import parse_executor_runner
from latency_tables.devices.native_litert import parse_benchmark_model
from latency_tables.devices.native_log import Timing, UnfitLogError, log_text
from latency_tables.devices.native_ncnn import parse_benchncnn
from latency_tables.devices.native_onnxruntime import parse_onnxruntime_perf_test

MAX_LOG_BYTES = 16 * 2**20
PARSERS: dict[str, tuple[ModelFormat, Callable[..., Timing | None]]] = {
    "benchmark_model": ("litert", parse_benchmark_model),
    "onnxruntime_perf_test": ("onnx", parse_onnxruntime_perf_test),
    "executor_runner": ("executorch", parse_executor_runner),
    "benchncnn": ("ncnn", parse_benchncnn),
}
"""For each program, the format of its models and the parser of its log, which returns None for an incomplete log."""


class Measurement(FileRecord):
    """A latency that was measured elsewhere. None means unknown.

    ``source``: device, tool and version as text. ``deviation_ms``: the standard deviation. ``program``: the program
    that printed it. ``runs``: the number of timed runs. ``threads``, ``delegate`` and ``precision``: the settings of
    the run.
    """

    file_format: ClassVar[str] = "dmask-measurement"
    file_version: ClassVar[int] = 2
    oldest_version: ClassVar[int | None] = 1

    model_format: ModelFormat
    ms: float = Field(gt=0)
    deviation_ms: float | None = Field(default=None, ge=0)
    source: str = Field(min_length=1)
    program: str | None = None
    runs: int | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, gt=0)
    delegate: str | None = Field(default=None, min_length=1)
    precision: Precision | None = None

    @classmethod
    def from_dict(cls, content: object, source: str) -> Self:
        """See `FileRecord`; version 1 had 0 for an unknown deviation."""
        if isinstance(content, dict) and content.get("version") == 1 and content.get("deviation_ms") == 0:
            content = {key: value for key, value in content.items() if key != "deviation_ms"}
        return super().from_dict(content, source)

    def check_fits(
        self, *, threads: int | None = None, delegate: str | None = None, precision: Precision | None = None
    ) -> None:
        """Checks that it has the settings of a table; unknown settings are not compared.

        Raises:
            DmaskError: naming the setting that differs, and both values.
        """
        wanted: dict[str, Any] = {"threads": threads, "delegate": delegate, "precision": precision}
        for key, value in wanted.items():
            ours = getattr(self, key)
            if None not in (ours, value) and ours != value:
                raise DmaskError(
                    f"measurement '{self.source}' does not fit: its {key} is {ours!r}, but the table's is {value!r}",
                    f"measure with the table's {key}, or verify with a table of that {key}",
                )


def read_measurement(path: Path) -> Measurement:
    """The latency in a file: a `Measurement`, or the output of one of the programs.

    Raises:
        DmaskError: if the file contains neither, or a latency of 0; if a log contains several runs or programs, or does
            not show that the model ran on the requested backend.
    """
    try:
        text = log_text(read_bytes(path, MAX_LOG_BYTES))
    except OSError as error:
        raise DmaskError(f"cannot read '{path}': {error.strerror}", "give the output of a benchmark program") from error
    if text.lstrip().startswith("{"):
        return Measurement.read(path)
    try:
        timings = {name: timing for name, (_, parse) in PARSERS.items() if (timing := parse(text)) is not None}
    except UnfitLogError as error:
        raise DmaskError(f"'{path}': {error.problem}", error.fix) from error
    if len(timings) > 1:
        raise DmaskError(f"'{path}' contains runs of {' and '.join(timings)}", "give the log of one run")
    for program, timing in timings.items():
        return _measurement(path, program, timing)
    example = {"format": "dmask-measurement", "version": Measurement.file_version, "model_format": "coreml", "ms": 1.5}
    raise DmaskError(
        f"'{path}' is not a complete output of {', '.join(PARSERS)}",
        f'give one, or a record like {json.dumps(example)[:-1]}, "source": "Xcode 17, iPhone 15"}}',
    )


def _measurement(path: Path, program: str, timing: Timing) -> Measurement:
    if not timing.ms > 0:
        raise DmaskError(f"'{path}': {program} printed {timing.ms:g} ms", "measure again, with more runs")
    runs = "" if timing.runs is None else f" of {timing.runs} runs"
    return Measurement(
        model_format=PARSERS[program][0],
        source=f"{program}, {path.name}, {timing.figure}{runs}",
        program=program,
        **{key: value for key, value in timing._asdict().items() if key != "figure"},
    )
