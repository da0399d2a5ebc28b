"""Models in a separate process: the same answers, a time limit, and a crash that affects only one model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from dmask_mobile.errors import DmaskError
from export.formats.registry import FORMATS
from export.verification.isolation import ModelProcess, UnresponsiveError, model_process
from export.verification.verify import VerifyOptions, verify_artifact
from tests.export.factory import exported, images_of, reference


@pytest.fixture(scope="module")
def process() -> Iterator[ModelProcess]:
    with model_process(120) as found:
        yield found


def loop_for_ever(path: Path) -> None:
    """Puts a loop that never ends before the output of an ONNX model."""
    model = onnx.load(path)
    graph, output = model.graph, model.graph.output[0].name
    for node in graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    boolean = helper.make_tensor_value_info("going_on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going_on"], ["goes_on"]),
            helper.make_node("Identity", ["state"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            boolean,
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, None),
        ],
    )
    graph.initializer.append(helper.make_tensor("always", TensorProto.BOOL, [], [True]))
    graph.node.append(helper.make_node("Loop", ["", "always", "before"], [output], body=body))
    onnx.save(model, path)


def test_a_model_elsewhere_answers_as_one_here(process: ModelProcess, tmp_path: Path) -> None:
    artifact, images = exported("onnx", tmp_path), images_of(count=3)
    path = tmp_path / artifact.path
    here, there = FORMATS["onnx"].open(path), process.open("onnx", path)
    assert torch.equal(here.run(images)["output"], there.run(images)["output"])
    assert there.counts() == here.counts()
    assert there.names() == here.names()
    assert there.metadata() == here.metadata()
    assert there.stray_operations() == here.stray_operations()
    assert there.unused_bytes() == 0
    inside, expected = there.intermediates(images[:1]), here.intermediates(images[:1])
    assert inside is not None
    assert expected is not None
    assert all(torch.equal(a, b) for a, b in zip(inside, expected, strict=True))


def test_errors_of_a_reader_arrive_as_they_are(process: ModelProcess, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(DmaskError, match="cannot be loaded as an ONNX model"):
        process.open("onnx", tmp_path / "model.onnx")
    path = tmp_path / exported("onnx", tmp_path / "good").path
    model = process.open("onnx", tmp_path / "good" / path.name)
    with pytest.raises(RuntimeError, match="InvalidArgument"):
        model.run(torch.zeros(1, 3, 5, 5))
    assert model.unused_bytes() == 0  # the process lives on


@pytest.mark.slow
def test_a_graph_that_loops_for_ever_fails_within_the_time_limit(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    loop_for_ever(tmp_path / artifact.path)
    with model_process(120) as process:
        process.open("onnx", tmp_path / artifact.path)  # starts it, which takes longer than a request
        process.limit_s = 2
        options = VerifyOptions(open_model=process.open)
        *_, last = verify_artifact(artifact, tmp_path, reference(), options)
    assert (last.quantity, last.verdict) == ("answers", "failed")
    assert (
        "no answer within 2 s (run); it was stopped; if the model is that slow, raise the limit with --time-limit"
        in last.note
    )


def test_a_crash_costs_one_model(process: ModelProcess, tmp_path: Path) -> None:
    path = tmp_path / exported("onnx", tmp_path).path
    model = process.open("onnx", path)
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGSEGV)
    for _ in range(2):  # it does not come to life again
        with pytest.raises(UnresponsiveError, match=r"ended the process that ran it \(counts, SIGSEGV\)"):
            model.counts()
    assert process.open("onnx", path).unused_bytes() == 0
