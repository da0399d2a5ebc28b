"""Parsers on lines that the programs print, on older forms, and on cut and garbled ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmask_mobile.errors import DmaskError
from latency_tables.devices.native_executorch import parse_executor_runner
from latency_tables.devices.native_litert import parse_benchmark_model
from latency_tables.devices.native_log import Timing, UnfitLogError
from latency_tables.devices.native_ncnn import parse_benchncnn
from latency_tables.devices.native_onnxruntime import parse_onnxruntime_perf_test
from latency_tables.devices.native_output import PARSERS, Measurement, read_measurement

BENCHMARK_MODEL = """INFO: STARTING!
INFO: count=5 first=123 curr=122 min=120 max=130 avg=122.373 std=3
INFO: count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948
INFO: Inference timings in us: Init: 870557, First inference: 130565, Warmup (avg): 122373, Inference (avg): 119375
"""
OLD_BENCHMARK_MODEL = "Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9\n"
PERF_TEST = """Average inference time cost total: 98.961997 ms
Min Latency: 0.0958204 s
P50 Latency: 0.0995086 s
P90 Latency: 0.101519 s
"""
RUNNER = """Model loaded in 12.3 ms.
Iteration 1 of 3: 4.40 ms
Iteration 2 of 3: 4.56 ms
Iteration 3 of 3: 4.70 ms
Model executed successfully 3 time(s) in 13.66 ms.
"""
BENCHNCNN = "loop_count = 8\n        mobilenet_v3  min =   11.39  max =   11.57  avg =   11.48\n"


STATISTICS = "count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948"
COMPLETELY = "Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.\n"


def test_benchmark_model_new_and_old() -> None:
    told = Timing(119.375, 1.948, runs=50, delegate="cpu")
    assert parse_benchmark_model(BENCHMARK_MODEL) == told
    assert parse_benchmark_model(BENCHMARK_MODEL.replace("INFO: ", "")) == told
    assert parse_benchmark_model(BENCHMARK_MODEL.replace("std=1948", "std=1948 p5=1 median=5 p95=9")) == told
    assert parse_benchmark_model(BENCHMARK_MODEL.replace("INFO: ", "I/tflite  ( 4669): ")) == told
    assert parse_benchmark_model(OLD_BENCHMARK_MODEL) == Timing(pytest.approx(79.7609))  # type: ignore[arg-type]
    no_stats = OLD_BENCHMARK_MODEL.replace("Inference", "no stats")
    assert parse_benchmark_model(f"Num threads: [2]\n{no_stats}") == Timing(
        pytest.approx(79.7609),  # type: ignore[arg-type]
        threads=2,
    )


def test_litert_2_tells_microseconds_above_its_rounded_result() -> None:
    """Lines of a run of LiteRT 2.x, whose result alone has two decimals."""
    statistics = "INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478\n"
    result = "INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      0.46 ms (2112 runs)\n"
    warm_up = statistics.replace("2112", "1055").replace("464.545", "465.319").replace("std=13", "std=18")
    told: float = pytest.approx(0.464545)  # type: ignore[assignment]
    profiler = "Timings (microseconds): count=3166 first=947 curr=406 min=390 max=947 avg=464.071 std=14\n"
    assert parse_benchmark_model(warm_up + statistics + result + profiler) == Timing(told, 0.013, runs=2112)
    assert parse_benchmark_model(result) == Timing(0.46, runs=2112)
    both = f"Inference timings in us: Init: 1, First inference: 1, Warmup (avg): 1, Inference (avg): 464.545\n{result}"
    assert parse_benchmark_model(statistics + both) == Timing(told, 0.013, runs=2112)
    with pytest.raises(UnfitLogError, match="two results"):
        parse_benchmark_model(both.replace("464.545", "364.545"))


@pytest.mark.parametrize(
    ("line", "deviation", "runs"),
    [
        ("count=1 curr=119375", None, 1),  # one run tells no deviation; that of the warm-up is none of it
        ("count=1 curr=119375 p5=119375 median=119375 p95=119375", None, 1),
        ("count=9 curr=119375(all same)", 0.0, 9),
        ("Timings (microseconds): count=50 first=1 curr=1 min=1 max=1 avg=119375 std=9999", None, None),
    ],
)
def test_the_deviation_is_that_of_the_timed_runs(line: str, deviation: float | None, runs: int | None) -> None:
    warm_up = "count=3 first=1500000 curr=1381510 min=1300000 max=1500000 avg=1.4e+06 std=90000"
    timing = parse_benchmark_model(f"{warm_up}\n{BENCHMARK_MODEL.replace('INFO: ' + STATISTICS, line)}")
    assert timing == Timing(119.375, deviation, runs=runs, delegate="cpu")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "Use NNAPI: [1]",
            "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.",
        ),
        ("Use gpu : [1]", "GPU acceleration is unsupported on this platform."),
        ("", "NNAPI acceleration is unsupported on this platform."),
        ("", "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate."),
        ("", "Replacing 45 out of 49 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions"),
        ("Use gpu: [1]", "Failed to apply GPU delegate."),
        ("Use gpu: [1]", "WARNING: [auto_registration.cc:50] GPU accelerator could not be loaded and registered"),
        (
            "benchmark_model --graph=a --use_gpu=true",
            "GPU delegate: falling back to CPU",
        ),
        (
            "Use gpu: [1]",
            "Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate",
        ),
        (
            "Created TensorFlow Lite delegate for GPU.",
            "VERBOSE: Replacing 45 out of 49 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions",
        ),
        ("Use npu: [1]", "WARNING: No usable Dispatch runtime found"),
        (
            "Use npu: [1]",
            "INFO: Replacing 470 out of 470 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 7 partitions",
        ),
        ("Use gpu: [1]", "Initialized OpenCL-based API on llvmpipe (LLVM 12.0.0, 256 bits)"),
        ("Use gpu: [1]", "INFO: adapter SwiftShader Device (Subzero)"),
        ("Use nnapi : [1]", "nnapi error: unable to open library libneuralnetworks.so"),
        ("Use NNAPI: [1]", "NNAPI accelerators available: [nnapi-reference]"),
    ],
)
def test_a_delegate_that_was_asked_for_and_did_not_run_all_is_refused(asked: str, said: str) -> None:
    with pytest.raises(UnfitLogError, match=re.escape(said[:150])):
        parse_benchmark_model(f"{asked}\n{said}\n{BENCHMARK_MODEL}")


def test_a_delegate_that_ran_the_whole_model_is_told() -> None:
    for log, delegate in {
        f"Use gpu: [1]\n{COMPLETELY}": "gpu",
        # the second one had nothing left to take
        f"Use gpu: [1]\nUse NNAPI: [1]\nNNAPI accelerators available: [nnapi-reference]\n{COMPLETELY}"
        "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.\n": "gpu",
        "Use npu: [1]\nReplacing 3 out of 3 node(s) with delegate (DispatchDelegate) node\n": "npu",
        # LiteRT 2.x tells of every accelerator, asked for or not
        "Use gpu: [1]\nNPU accelerator could not be loaded and registered\nNo dispatch library found in /tmp\n": "gpu",
        "Use xnnpack: [1]\nExplicitly applied XNNPACK delegate, and the model graph will be partially executed by the"
        " delegate w/ 1 delegate kernels.\n": "cpu",
        "Use gpu : [0]\nUse nnapi : [0]\nnnapi error: unable to open library libneuralnetworks.so\n": "cpu",
    }.items():
        timing = parse_benchmark_model(log + BENCHMARK_MODEL)
        assert timing is not None
        assert timing.delegate == delegate, log


def test_perf_test_new_older_and_oldest() -> None:
    command = "$ ./onnxruntime_perf_test -I -m times -r 5 -x 4 -e nnapi a.onnx\n"
    assert parse_onnxruntime_perf_test(command + PERF_TEST + "Runs:5\n") == Timing(
        pytest.approx(99.5086),  # type: ignore[arg-type]
        figure="median",
        runs=5,
        threads=4,
        delegate="nnapi",
    )
    assert parse_onnxruntime_perf_test("Average inference time cost: 98.9 ms\n") == Timing(98.9)
    assert parse_onnxruntime_perf_test("Average time cost:58.8053 ms\n") == Timing(58.8053)
    oldest = "Total iterations: 1000\nAverage time cost: 58.8053 ms\nP50 Latency is 0.0587108 sec\n"
    assert parse_onnxruntime_perf_test(oldest) == Timing(
        pytest.approx(58.7108),  # type: ignore[arg-type]
        figure="median",
        runs=1000,
    )
    assert parse_onnxruntime_perf_test(oldest.replace(" sec", "sec")) == parse_onnxruntime_perf_test(oldest)
    threads = "Setting intra_op_num_threads to 2\nusing SpaceMITExecutionProvider\n"
    assert parse_onnxruntime_perf_test(threads + "Average inference time cost: 98.9 ms\n") == Timing(
        98.9, threads=2, delegate="spacemit"
    )
    chosen = "Setting intra_op_num_threads to 0\nAverage inference time cost:98.9 ms\n"  # by the program itself
    assert parse_onnxruntime_perf_test(chosen) == Timing(98.9)


@pytest.mark.parametrize(
    "line",
    [
        "[W:onnxruntime:, session_state.cc:1166] Some nodes were not assigned to the preferred execution providers",
        "[W:onnxruntime:, x.cc:9 GetCapability] NnapiExecutionProvider::GetCapability, number of partitions supported"
        " by NNAPI: 2 number of nodes in the graph: 54 number of nodes supported by NNAPI: 50",
        "Failed to create NnapiExecutionProvider",
        "WebGPU ExecutionProvider on llvmpipe (LLVM 15)",
    ],
)
def test_a_provider_that_did_not_take_all_is_refused(line: str) -> None:
    with pytest.raises(UnfitLogError, match=re.escape(line[:100])):
        parse_onnxruntime_perf_test(f"onnxruntime_perf_test -e nnapi a.onnx\n{line}\n{PERF_TEST}")


def test_what_xnnpack_leaves_is_run_by_the_cpu_as_well() -> None:
    log = "onnxruntime_perf_test -e xnnpack a\nSome nodes were not assigned to the preferred execution providers\n"
    timing = parse_onnxruntime_perf_test(log + PERF_TEST)
    assert timing is not None
    assert timing.delegate == "xnnpack"


def test_executor_runner_with_and_without_iterations() -> None:
    timing = parse_executor_runner(f"Resetting threadpool with num threads = 2\n{RUNNER}")
    assert timing is not None
    assert timing.deviation_ms == pytest.approx(0.1501, abs=1e-4)
    assert timing._replace(deviation_ms=None) == Timing(4.56, figure="median", runs=3, threads=2)
    prefix = "I 00:00:00.002123 executorch:executor_runner.cpp:520] "
    assert parse_executor_runner("".join(prefix + line for line in RUNNER.splitlines(True))) is not None
    assert parse_executor_runner("Model executed successfully 10 time(s) in 45.5 ms.\n") == Timing(4.55, runs=10)
    assert parse_executor_runner("Model executed successfully 0 time(s) in 45.6 ms.\n") is None
    assert parse_executor_runner("Model executed successfully.\n") is None  # the oldest: no time at all
    one = "Iteration 1 of 1: 4.5 ms\nModel executed successfully 1 time(s) in 4.5 ms.\n"
    assert parse_executor_runner(one) == Timing(4.5, figure="median", runs=1)


def test_one_cold_run_changes_neither_median_nor_deviation() -> None:
    each = [96.0, 4.4, 4.5, 4.6, 4.5]
    lines = [f"Iteration {number} of 5: {ms:f} ms" for number, ms in enumerate(each, 1)]
    timing = parse_executor_runner(
        "\n".join([*lines, f"Model executed successfully 5 time(s) in {sum(each):f} ms.", ""])
    )
    assert timing is not None
    assert timing.ms == 4.5
    assert timing.deviation_ms == pytest.approx((2 * 0.1**2 / 3) ** 0.5)  # of the last four


HEAD = "loop_count = 4\nnum_threads = 8\npowersave = 2\ngpu_device = 0\ncooling_down = 0\n"
MALI = "[0 Mali-G710]  queueC=0[2]  queueG=0[2]  queueT=0[2]\n[0 Mali-G710]  fp16-p/s/a=1/1/1\n"
SOFTWARE = "[1 llvmpipe (LLVM 12.0.0, 256 bits)]  queueC=0[1]  queueG=0[1]  queueT=0[1]\n"
LINE = "        0.param  min =   11.39  max =   11.57  avg =   11.48\n"


def test_benchncnn_tells_of_one_network() -> None:
    assert parse_benchncnn(BENCHNCNN) == Timing(11.48, runs=8)
    assert parse_benchncnn(MALI + SOFTWARE + HEAD + LINE) == Timing(11.48, runs=4, threads=8, delegate="gpu")
    cpu = HEAD.replace("gpu_device = 0", "gpu_device = -1")
    assert parse_benchncnn(f"no vulkan device\nvkCreateInstance failed -9\n{SOFTWARE}{cpu}{LINE}") == Timing(
        11.48, runs=4, threads=8, delegate="cpu"
    )
    with pytest.raises(UnfitLogError, match=r"the log contains 2 runs, the second with: 'mobilenet_v3 +min"):
        parse_benchncnn(BENCHNCNN * 2)  # whose is it?


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("no vulkan device\n" + HEAD + LINE, "a GPU was requested, but none was used: 'no vulkan device'"),
        (HEAD + LINE, r"no line '\[0 NAME\]  queueC=' shows that Vulkan was used: 'gpu_device = 0'"),
        (MALI.replace("[0", "[1") + HEAD + LINE, r"no line '\[0 NAME\]"),
        (SOFTWARE.replace("[1", "[0") + HEAD + LINE, r"the GPU is emulated by software on the CPU: '\[0 llvmpipe"),
        ("WARNING: lavapipe is not a conformant vulkan implementation\n" + LINE, "software on the CPU: 'WARNING: lava"),
        (MALI + HEAD + "find_blob_index_by_name data failed\n" + LINE, "after an error: 'find_blob_index_by_name data"),
        (MALI + HEAD + "layer GlobalAveragePool not exists or registered\n" + LINE, "'layer GlobalAveragePool"),
        (MALI + HEAD + "layer load_param failed\n" + LINE, "'layer load_param failed'"),
        (MALI + HEAD + "fopen 0.param failed\n" + LINE, "'fopen 0.param failed'"),
        (MALI + HEAD + "network graph not ready\n" + LINE, "'network graph not ready'"),
        (MALI + HEAD + "vkWaitForFences failed -4\n" + LINE, "'vkWaitForFences failed -4'"),
    ],
)
def test_what_benchncnn_did_not_run_is_refused(log: str, message: str) -> None:
    with pytest.raises(UnfitLogError, match=message):
        parse_benchncnn(log)


@pytest.mark.parametrize("text", [BENCHMARK_MODEL, OLD_BENCHMARK_MODEL, PERF_TEST, RUNNER, BENCHNCNN])
def test_two_runs_in_a_log_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "two.txt"
    path.write_text(text + text.replace("4", "5"))
    with pytest.raises(
        DmaskError, match=r"two.txt': the log contains 2 runs, the second with: '.*give the log of one run"
    ):
        read_measurement(path)
    other = RUNNER if text != RUNNER else BENCHNCNN
    path.write_text(text + other)
    with pytest.raises(DmaskError, match=r"contains runs of (\w+) and (\w+); give the log of one run"):
        read_measurement(path)


def test_a_run_that_was_begun_again_is_not_taken_for_one() -> None:
    begun = f"STARTING!\nUse gpu: [1]\n{COMPLETELY}"
    with pytest.raises(UnfitLogError, match="the log contains 2 runs, the second with: 'INFO: STARTING!'"):
        parse_benchmark_model(begun + BENCHMARK_MODEL)


@pytest.mark.parametrize("text", [BENCHMARK_MODEL, OLD_BENCHMARK_MODEL, RUNNER, BENCHNCNN])
def test_output_that_was_cut_off_is_no_measurement(text: str) -> None:
    """A number that lost its last digits must not become a smaller latency."""
    assert [parse(text) for _, parse in PARSERS.values()].count(None) == len(PARSERS) - 1
    for length in range(len(text) - 1):
        assert {parse(text[:length]) for _, parse in PARSERS.values()} == {None}, text[:length]


def test_perf_test_that_was_cut_off_tells_a_whole_line_or_nothing() -> None:
    found = {parse_onnxruntime_perf_test(PERF_TEST[:length]) for length in range(len(PERF_TEST))}
    assert found == {None, Timing(98.961997), parse_onnxruntime_perf_test(PERF_TEST)}


@given(st.text())
def test_garbage_is_no_measurement(text: str) -> None:
    assert all(parse(text) is None for _, parse in PARSERS.values())


def test_a_file_of_each_program_is_recognized(tmp_path: Path) -> None:
    outputs = {"litert": BENCHMARK_MODEL, "onnx": PERF_TEST, "executorch": RUNNER, "ncnn": BENCHNCNN}
    for expected, text in outputs.items():
        path = tmp_path / "out.txt"
        path.write_text(text)
        assert read_measurement(path).model_format == expected
        assert "out.txt" in read_measurement(path).source


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_logs_of_a_powershell_and_with_colours(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(
        "\x1b[0;93m" + PERF_TEST.replace("\n", "\x1b[m\r\n") + "x" * 1_000_000, encoding=encoding, newline=""
    )
    assert read_measurement(path).ms == pytest.approx(99.5086)


def test_a_log_tells_what_it_ran_with(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(f"INFO: Num threads: [4]\nINFO: Use gpu: [1]\n{COMPLETELY}{BENCHMARK_MODEL}")
    found = read_measurement(path)
    assert found == Measurement(
        model_format="litert", ms=119.375, deviation_ms=1.948, source="benchmark_model, log.txt, average of 50 runs",
        program="benchmark_model", runs=50, threads=4, delegate="gpu", precision=None,
    )  # fmt: skip
    found.check_fits(threads=4, delegate="gpu", precision="fp16")  # the log does not say which precision
    found.check_fits()
    with pytest.raises(
        DmaskError, match=r"log.txt, .*' does not fit: its threads is 4, but the table's is 1; measure with"
    ):
        found.check_fits(threads=1, delegate="gpu")
    with pytest.raises(DmaskError, match="its delegate is 'gpu', but the table's is 'cpu'"):
        found.check_fits(threads=4, delegate="cpu")
    with pytest.raises(DmaskError, match="its precision is 'int8', but the table's is 'fp32'"):
        found.model_copy(update={"precision": "int8"}).check_fits(precision="fp32")


def test_a_record_of_version_1_is_read_and_version_2_written(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    record = {
        "format": "dmask-measurement", "version": 1, "model_format": "coreml", "ms": 1.25, "deviation_ms": 0.0,
        "source": "Xcode, iPhone",
    }  # fmt: skip
    old.write_text(json.dumps(record))
    assert read_measurement(old).deviation_ms is None  # version 1 had no other word for unknown
    old.write_text(json.dumps({**record, "deviation_ms": 0.5}))
    assert read_measurement(old).deviation_ms == 0.5
    new = tmp_path / "new.json"
    Measurement(model_format="onnx", ms=2, deviation_ms=0, source="x", threads=2).write(new)
    assert json.loads(new.read_text())["version"] == 2
    assert (read_measurement(new).deviation_ms, read_measurement(new).threads) == (0.0, 2)


FINDINGS = Path(__file__).parents[3] / "../shared/findings"
RIGHT: dict[str, tuple[float, float | None] | str] = {
    "a02_tf56301_nnapi_not_executed": "Though NNAPI delegate is explicitly applied",
    "a07_yuenshome77_no_stats_two_runs": "the log contains 2 runs",
    "a10_tf42507_op_profiling": (33.2094, 0.45),
    "a14_litert134_slow_count1": (1381.51, None),
    "a15_mlcommons1134_litert_new": (7430.20, 9.92),
    "a16_ort2798_no_space": (734.606, None),
    "a17_ort4647_two_runs_acl_and_cpu": "the log contains 2 runs",
    "a18_ort17313_latency_is_sec": (58.7108, None),
    "a25_ncnn1996_blob_not_found": "find_blob_index_by_name data failed",
    "a27_ncnn4111_llvmpipe": "llvmpipe",
    "a32_litert7858_cpu_although_npu": "No usable Dispatch runtime found",
    "a35_ncnn_no_vulkan_small": "no vulkan device",
}


@pytest.mark.skipif(not FINDINGS.is_dir(), reason="the collection of public logs is not here")
@pytest.mark.parametrize("name", RIGHT)
def test_logs_of_public_reports(name: str) -> None:
    right = RIGHT[name]
    if isinstance(right, str):
        with pytest.raises(DmaskError, match=right):
            read_measurement(FINDINGS / f"{name}.txt")
        return
    found = read_measurement(FINDINGS / f"{name}.txt")
    assert found.ms == pytest.approx(right[0], rel=1e-9)
    assert found.deviation_ms == (None if right[1] is None else pytest.approx(right[1]))


def test_a_record_brings_what_no_program_prints(tmp_path: Path) -> None:
    path = tmp_path / "xcode.json"
    record = {
        "format": "dmask-measurement", "version": 1, "model_format": "coreml", "ms": 1.25, "source": "Xcode, iPhone",
    }  # fmt: skip
    path.write_text(json.dumps(record))
    assert read_measurement(path).ms == 1.25
    path.write_text(json.dumps({**record, "ms": -1}))
    with pytest.raises(DmaskError, match="ms: Input should be greater than 0"):
        read_measurement(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.txt"
    path.write_text("hello")
    with pytest.raises(DmaskError, match=r"not a complete output of benchmark_model.*dmask-measurement"):
        read_measurement(path)
    with pytest.raises(DmaskError, match="cannot read"):
        read_measurement(tmp_path / "absent")
