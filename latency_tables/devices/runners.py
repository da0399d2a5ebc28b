"""The runtimes' own benchmark programs, for phones without a Python."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import ModelFormat, Precision
from latency_tables.devices.native_executorch import parse_executor_runner
from latency_tables.devices.native_litert import parse_benchmark_model
from latency_tables.devices.native_log import Timing
from latency_tables.devices.native_ncnn import parse_benchncnn
from latency_tables.devices.native_onnxruntime import parse_onnxruntime_perf_test
from latency_tables.runtimes.runtime import Runtime

MIN_RUNS, MAX_RUNS = 20, 2000
MAX_SECONDS = 60.0  # no more runs are started after this time, if the program has such a limit


class RunRequest(NamedTuple):
    """A request to a program. ``model``: a path on the phone; ``shape``: of the input (C, H, W), only for ncnn."""

    model: str
    threads: int
    delegate: Sequence[str]
    flags: Sequence[str]
    seconds: float
    runs: int
    shape: Sequence[int] = ()


class Runner(NamedTuple):
    """One program: the models that it runs, its arguments and the parser of its output.

    ``pins_itself``: it chooses its cores itself. ``trial``: arguments with which it ends at once. ``log_tag``: the name
    under which it writes to Android's log. ``where``: where to get it. ``halves``: delegates on which it computes fp32
    models in fp16, each with the flags that switch this off. ``parse``: also takes the requested delegate, and refuses
    the log of a run on another one.
    """

    runtime: str
    model_format: ModelFormat
    suffix: str
    parse: Callable[[str, str], Timing | None]
    delegates: Mapping[str, Sequence[str]]
    arguments: Callable[[RunRequest], list[str]]
    pins_itself: bool
    trial: Sequence[str]
    log_tag: str
    where: str
    halves: Mapping[str, Sequence[str]] = MappingProxyType({})


def _benchmark_model(request: RunRequest) -> list[str]:
    return [
        f"--graph={request.model}",
        f"--num_threads={request.threads}",
        f"--num_runs={request.runs}",
        f"--min_secs={request.seconds}",
        f"--max_secs={MAX_SECONDS}",
        f"--warmup_min_secs={request.seconds}",
        *request.delegate,
        *request.flags,
    ]


def _onnxruntime_perf_test(request: RunRequest) -> list[str]:
    options = ["-I", "-m", "times", "-r", str(request.runs), "-x", str(request.threads)]
    return [*options, *request.delegate, *request.flags, request.model]


def _executor_runner(request: RunRequest) -> list[str]:
    return [
        f"--model_path={request.model}",
        f"--num_executions={request.runs}",
        f"--cpu_threads={request.threads}",
        *request.flags,
    ]


def _benchncnn(request: RunRequest) -> list[str]:
    """Arguments: loops, threads, powersave, GPU, cooling down (off, because the thermal status is watched instead)."""
    channels, height, width = request.shape
    positions = [str(request.runs), str(request.threads), "2", *request.delegate, "0"]
    return [*positions, f"param={request.model}", f"shape=[{width},{height},{channels}]", *request.flags]


RUNNERS: dict[str, Runner] = {
    "benchmark_model": Runner(
        runtime="litert",
        model_format="litert",
        suffix=".tflite",
        parse=parse_benchmark_model,
        delegates={"cpu": ["--use_xnnpack=true"], "gpu": ["--use_gpu=true"], "nnapi": ["--use_nnapi=true"]},
        arguments=_benchmark_model,
        pins_itself=False,
        trial=["--help"],
        log_tag="",
        where="get it for Android from https://ai.google.dev/edge/litert/models/measurement",
        halves={"gpu": ["--gpu_precision_loss_allowed=false", "--gpu_precision_loss_allowed=0"]},
    ),
    "onnxruntime_perf_test": Runner(
        runtime="onnxruntime",
        model_format="onnx",
        suffix=".onnx",
        parse=parse_onnxruntime_perf_test,
        delegates={"cpu": ["-e", "cpu"], "xnnpack": ["-e", "xnnpack"], "nnapi": ["-e", "nnapi"]},
        arguments=_onnxruntime_perf_test,
        pins_itself=False,
        trial=["-h"],
        log_tag="",
        where="build it with ONNX Runtime for Android: https://onnxruntime.ai/docs/build/android.html",
    ),
    # On Android its output goes to the system log, and a release build has no output without that option.
    "executor_runner": Runner(
        runtime="executorch",
        model_format="executorch",
        suffix=".pte",
        parse=parse_executor_runner,
        delegates={"cpu": []},
        arguments=_executor_runner,
        pins_itself=False,
        trial=["--help"],
        log_tag="ExecuTorch",
        where="build it for Android with EXECUTORCH_BUILD_XNNPACK and EXECUTORCH_ENABLE_LOGGING: "
        "https://docs.pytorch.org/executorch/stable/using-executorch-building-from-source.html",
    ),
    # It chooses its own cores, independent of `taskset` (2: the big cores), and prints times with 0.01 ms.
    "benchncnn": Runner(
        runtime="ncnn",
        model_format="ncnn",
        suffix=".param",
        parse=parse_benchncnn,
        delegates={"cpu": ["-1"], "gpu": ["0"]},
        arguments=_benchncnn,
        pins_itself=True,
        trial=["1", "1", "2", "-1", "0", "param=none"],
        log_tag="",
        where="build a version that supports 'param=' with ncnn for Android: https://github.com/Tencent/ncnn",
        halves={"cpu": (), "gpu": ()},
    ),
}


class NativeRunner(NamedTuple):
    """A program for a phone that is stored on this machine, and the user's flags for it."""

    name: str
    path: Path
    flags: tuple[str, ...]

    @property
    def runner(self) -> Runner:
        """The description of how the program is used."""
        return RUNNERS[self.name]

    @property
    def libraries(self) -> list[Path]:
        """Shared libraries in the same folder, which it may need on the phone."""
        return sorted(self.path.parent.glob("*.so"))

    def version(self) -> str:
        """Its name, the digest of its content and its flags, which replace the runtime's version in a table."""
        content = hashlib.sha256(self.path.read_bytes())
        for library in self.libraries:
            content.update(library.read_bytes())
        return " ".join([f"{self.name} {content.hexdigest()[:12]}", *map(shlex.quote, self.flags)])

    def check_precision(self, precision: Precision, delegate: str) -> None:
        """Checks that it computes on ``delegate`` in the precision of the table.

        Raises:
            DmaskError: if it does not.
        """
        halves, todo = self.runner.halves, "give --precision fp16"
        if precision == "fp32" and delegate in halves and not set(halves[delegate]) & set(self.flags):
            todo += "".join(f" or --runner-flag={flag}" for flag in halves[delegate][:1])
            raise DmaskError(f"{self.name} computes in fp16 on '{delegate}' if it can, even for fp32 models", todo)

    def delegate_flags(self, delegate: str) -> Sequence[str]:
        """The flags that make it run on ``delegate``.

        Raises:
            DmaskError: if it cannot.
        """
        if delegate not in self.runner.delegates:
            known = ", ".join(self.runner.delegates)
            raise DmaskError(f"{self.name} has no delegate '{delegate}'", f"choose one of {known}")
        return self.runner.delegates[delegate]


def native_runner(path: str, flags: Sequence[str], runtime: Runtime) -> NativeRunner:
    """The program at ``path``, which is recognized by its file name.

    Raises:
        DmaskError: if there is no such file, it is not one of the known programs, or it runs other models than those of
            ``runtime``.
    """
    program = Path(path)
    if not program.is_file():
        raise DmaskError(f"no runner '{path}'", "give the path of a benchmark program on this machine")
    names = [name for name in RUNNERS if name in program.name]  # such as android_aarch64_benchmark_model
    if not names:
        raise DmaskError(
            f"runner '{path}' must be one of {', '.join(RUNNERS)}", "one of these must be in its file name"
        )
    runner = RUNNERS[names[0]]
    if runner.model_format != runtime.model_format:
        wanted = next((name for name in RUNNERS if RUNNERS[name].runtime == runtime.name), "another runner")
        raise DmaskError(
            f"{names[0]} runs {runner.model_format} models, but {runtime.name} makes {runtime.model_format} models",
            f"use {wanted} or --runtime {runner.runtime}",
        )
    return NativeRunner(names[0], program, tuple(flags))
