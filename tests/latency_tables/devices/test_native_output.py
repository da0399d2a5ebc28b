"""Parsers on lines that the programs print, on older forms, and on cut and garbled ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmask_mobile.errors import DmaskError
from latency_tables.devices.native_output import (
    PARSERS,
    Timing,
    parse_benchmark_model,
    parse_benchncnn,
    parse_executor_runner,
    parse_onnxruntime_perf_test,
    read_measurement,
)

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


def test_benchmark_model_new_and_old() -> None:
    assert parse_benchmark_model(BENCHMARK_MODEL) == Timing(119.375, 1.948)
    assert parse_benchmark_model(BENCHMARK_MODEL.replace("INFO: ", "")) == Timing(119.375, 1.948)
    assert parse_benchmark_model(BENCHMARK_MODEL.replace("std=1948", "std=1948 p5=1 p95=9")) == Timing(119.375, 1.948)
    assert parse_benchmark_model(OLD_BENCHMARK_MODEL) == Timing(pytest.approx(79.7609), 0.0)  # type: ignore[arg-type]


def test_perf_test_new_older_and_oldest() -> None:
    assert parse_onnxruntime_perf_test(PERF_TEST) == Timing(pytest.approx(99.5086))  # type: ignore[arg-type]
    assert parse_onnxruntime_perf_test("Average inference time cost: 98.9 ms\n") == Timing(98.9)
    assert parse_onnxruntime_perf_test("Average time cost:58.8053 ms\n") == Timing(58.8053)


def test_executor_runner_with_and_without_iterations() -> None:
    timing = parse_executor_runner(RUNNER)
    assert timing is not None
    assert timing.ms == 4.56
    assert timing.deviation_ms == pytest.approx(0.1501, abs=1e-4)
    assert parse_executor_runner("Model executed successfully 10 time(s) in 45.5 ms.\n") == Timing(4.55)
    assert parse_executor_runner("Model executed successfully 0 time(s) in 45.6 ms.\n") is None


def test_benchncnn_tells_of_one_network() -> None:
    assert parse_benchncnn(BENCHNCNN) == Timing(11.48)
    assert parse_benchncnn(BENCHNCNN * 2) is None  # whose is it?


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
    with pytest.raises(DmaskError, match=r"no complete output of benchmark_model.*dmask-measurement"):
        read_measurement(path)
    with pytest.raises(DmaskError, match="cannot read"):
        read_measurement(tmp_path / "absent")
