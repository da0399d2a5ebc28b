"""Models are converted once, elsewhere where that pays, and never found where they do not belong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn

from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.block import BlockSpec
from latency_tables.conversion import converter as conversion
from latency_tables.conversion.converter import MIN_FOR_PROCESSES, converter_for, remove_oldest
from latency_tables.runtimes.ncnn import NcnnRuntime
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import Subject


def blocks(count: int) -> list[Subject]:
    return [(BlockSpec(kind="conv", in_width=3, out_width=4 + i, kernel=3, stride=2), 8) for i in range(count)]


class Counting(NcnnRuntime):
    """ncnn, but for a model that is quick to make: it says how often."""

    def __init__(self) -> None:
        self.calls = 0

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        self.calls += 1
        if input_shape[2] == 9:
            raise RuntimeError("no kernel for 9 pixels")
        return f"{precision} {self.calls}".encode()


def test_a_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, (first, second) = Counting(), blocks(2)
    for _ in range(2):
        with converter_for(runtime, "fp32", tmp_path) as converter:
            assert converter.model(first) == b"fp32 1"
    with converter_for(runtime, "fp16", tmp_path) as converter:
        assert converter.model(first) == b"fp16 2"
    with converter_for(runtime, "fp32", tmp_path) as converter:
        assert converter.model(second) == b"fp32 3"
        monkeypatch.setattr(conversion, "source_digest", lambda *places: "of changed code")
        assert converter.model(first) == b"fp32 4"


def test_what_is_quick_to_convert_is_not_kept(tmp_path: Path) -> None:
    with converter_for(OnnxRuntime(), "fp32", tmp_path) as converter:
        converter.convert_all(blocks(MIN_FOR_PROCESSES + 1))
        assert converter.model(blocks(1)[0])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_converted_says_why_and_is_not_kept(tmp_path: Path) -> None:
    with converter_for(Counting(), "fp32", tmp_path) as converter:
        block = BlockSpec(kind="conv", in_width=3, out_width=4, kernel=3, stride=2)
        with pytest.raises(RuntimeError, match="no kernel for 9 pixels"):
            converter.model((block, 9))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_convert_as_this_one_does(tmp_path: Path) -> None:
    wanted, told = blocks(MIN_FOR_PROCESSES), []
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        converter.convert_all(wanted, lambda stage, done, total, note="": told.append((stage, done, total)))
        assert len(list(tmp_path.iterdir())) == MIN_FOR_PROCESSES
        assert told == [("convert", done, MIN_FOR_PROCESSES) for done in range(1, MIN_FOR_PROCESSES + 1)]
        found = converter.model(wanted[0])
        assert len(found) == len(conversion.convert_subject(wanted[0], NcnnRuntime(), "fp32"))
        with converter_for(NcnnRuntime(), "fp32", tmp_path / "other") as other:
            pids = [process._process.pid for process in converter._processes]
            assert other._processes == []
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_a_wish_to_stop_ends_the_conversion(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        raise StopError

    wanted = blocks(10 * MIN_FOR_PROCESSES)
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter, pytest.raises(StopError):
        converter.convert_all(wanted, stop)
    assert 0 < len(list(tmp_path.iterdir())) < len(wanted)


def test_the_oldest_models_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    remove_oldest(tmp_path, 25)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}
    remove_oldest(tmp_path, 25)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}
