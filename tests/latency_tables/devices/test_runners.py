"""Native programs: how they are known and how they are called. Expected flags are from each program's documentation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from latency_tables.devices.native_output import PARSERS
from latency_tables.devices.options import DeviceOptions
from latency_tables.devices.runners import MAX_SECONDS, RUNNERS, RunRequest, native_runner
from latency_tables.profiling.setup import setup_for
from latency_tables.runtimes.registry import RUNTIMES, runtime_named


def program(folder: Path, name: str, content: bytes = b"x") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def request(name: str, delegate: str = "cpu", flags: tuple[str, ...] = ()) -> RunRequest:
    return RunRequest("a.model", 2, RUNNERS[name].delegates[delegate], flags, 0.5, 30, (3, 224, 192))


def test_each_program_fits_its_runtime_and_its_parser() -> None:
    assert set(RUNNERS) == set(PARSERS)
    for name, runner in RUNNERS.items():
        assert PARSERS[name] == (runner.model_format, runner.parse)
        assert RUNTIMES[runner.runtime].model_format == runner.model_format
        assert set(runner.delegates) == set(RUNTIMES[runner.runtime].delegates)


def test_benchmark_model_is_called_by_flags() -> None:
    found = RUNNERS["benchmark_model"].arguments(
        request("benchmark_model", "gpu", ("--gpu_precision_loss_allowed=false",))
    )
    assert found == [
        "--graph=a.model",
        "--num_threads=2",
        "--num_runs=30",
        "--min_secs=0.5",
        f"--max_secs={MAX_SECONDS}",
        "--warmup_min_secs=0.5",
        "--use_gpu=true",
        "--gpu_precision_loss_allowed=false",
    ]
    assert "--use_xnnpack=true" in RUNNERS["benchmark_model"].arguments(request("benchmark_model"))
    assert "--use_nnapi=true" in RUNNERS["benchmark_model"].arguments(request("benchmark_model", "nnapi"))


def test_perf_test_takes_options_before_the_model() -> None:
    found = RUNNERS["onnxruntime_perf_test"].arguments(request("onnxruntime_perf_test", "nnapi", ("-o", "1")))
    assert found == ["-I", "-m", "times", "-r", "30", "-x", "2", "-e", "nnapi", "-o", "1", "a.model"]


def test_executor_runner_is_told_its_threads() -> None:
    found = RUNNERS["executor_runner"].arguments(request("executor_runner"))
    assert found == ["--model_path=a.model", "--num_executions=30", "--cpu_threads=2"]


@pytest.mark.parametrize(("delegate", "device"), [("cpu", "-1"), ("gpu", "0")])
def test_benchncnn_takes_positions_and_the_shape_backwards(delegate: str, device: str) -> None:
    found = RUNNERS["benchncnn"].arguments(request("benchncnn", delegate))
    assert found == ["30", "2", "2", device, "0", "param=a.model", "shape=[192,224,3]"]


def test_known_by_the_file_name(tmp_path: Path) -> None:
    path = program(tmp_path, "android_aarch64_benchmark_model")
    native = native_runner(path, (), runtime_named("litert"))
    assert native.name == "benchmark_model"
    assert native.runner is RUNNERS["benchmark_model"]
    with pytest.raises(
        DmaskError, match=r"'.*other' must be one of benchmark_model, onnxruntime_perf_test, executor_runner"
    ):
        native_runner(program(tmp_path, "other"), (), runtime_named("litert"))
    with pytest.raises(DmaskError, match="no runner '/absent/benchmark_model'; give the path"):
        native_runner("/absent/benchmark_model", (), runtime_named("litert"))


def test_must_run_what_the_runtime_makes(tmp_path: Path) -> None:
    path = program(tmp_path, "benchmark_model")
    message = (
        "benchmark_model runs litert models, but onnxruntime makes onnx models; "
        "use onnxruntime_perf_test or --runtime litert"
    )
    with pytest.raises(DmaskError, match=message):
        native_runner(path, (), runtime_named("onnxruntime"))
    with pytest.raises(DmaskError, match="coreml makes coreml models; use another runner or --runtime litert"):
        native_runner(path, (), runtime_named("coreml"))


def test_unknown_delegate(tmp_path: Path) -> None:
    native = native_runner(program(tmp_path, "benchmark_model"), (), runtime_named("litert"))
    assert native.delegate_flags("nnapi") == ["--use_nnapi=true"]
    with pytest.raises(DmaskError, match="benchmark_model has no delegate 'npu'; choose one of cpu, gpu, nnapi"):
        native.delegate_flags("npu")


def test_version_names_content_libraries_and_flags(tmp_path: Path) -> None:
    path = program(tmp_path, "benchmark_model", b"program")
    litert = runtime_named("litert")
    alone = hashlib.sha256(b"program").hexdigest()[:12]
    assert native_runner(path, (), litert).version() == f"benchmark_model {alone}"
    assert native_runner(path, ("--a=b c",), litert).version() == f"benchmark_model {alone} '--a=b c'"
    program(tmp_path, "libdelegate.so", b"library")
    both = hashlib.sha256(b"programlibrary").hexdigest()[:12]
    assert native_runner(path, (), litert).version() == f"benchmark_model {both}"
    ncnn = native_runner(program(tmp_path, "benchncnn", b"program"), (), runtime_named("ncnn"))
    assert ncnn.version() == f"benchncnn {both}"


@pytest.mark.parametrize(
    ("name", "runtime", "delegate"), [("benchncnn", "ncnn", "cpu"), ("benchmark_model", "litert", "gpu")]
)
def test_a_program_that_computes_in_half_wants_that(name: str, runtime: str, delegate: str, tmp_path: Path) -> None:
    native = native_runner(program(tmp_path, name), (), runtime_named(runtime))
    with pytest.raises(DmaskError, match=rf"{name} computes in fp16 on '{delegate}' .*; give --precision fp16"):
        native.check_precision("fp32", delegate)
    for flag in native.runner.halves[delegate]:
        native._replace(flags=(flag,)).check_precision("fp32", delegate)
    native.check_precision("fp16", delegate)
    options = DeviceOptions(at="adb", runner=program(tmp_path, name))
    with pytest.raises(DmaskError, match="computes in fp16"):
        setup_for([options], runtime, precision="fp32", delegate=delegate)
    assert setup_for([options], runtime, precision="fp16", delegate=delegate).delegate == delegate


def test_litert_computes_in_fp32_on_the_cpu(tmp_path: Path) -> None:
    native_runner(program(tmp_path, "benchmark_model"), (), runtime_named("litert")).check_precision("fp32", "cpu")
