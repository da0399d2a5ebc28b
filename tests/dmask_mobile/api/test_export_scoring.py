"""Candidates of a search that are ranked by the accuracy of their int8 exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dmask_mobile as dm
from dmask_mobile.api.export_scoring import ExportAccuracy, parse_rank_precision
from dmask_mobile.api.run_data import new_record
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.data.images import normalized, seen
from dmask_mobile.nets.build import build
from dmask_mobile.records.data import DataOptions
from tests.dmask_mobile.small import SPACE, few_images

SHORT = dm.SearchSettings(epochs=1, warmup=0.0, evaluations=8, evaluation_images=16, trials=0)


def test_a_network_that_int8_destroys_scores_badly() -> None:
    """A weight that adds the same to all scores changes no answer, but takes the resolution from the other weights."""
    data, child = few_images(96), SPACE.child(SPACE.smallest())
    network = build(child).eval()
    scorer = ExportAccuracy(new_record(data, DataOptions()), "onnx", "int8")
    accuracies = []
    for weight in (None, 1e4):
        with torch.no_grad():
            if weight is not None:
                network.blocks[-1].linear.weight[:, 0] = weight
            answers = network(normalized(data.train.pixels(), data)).argmax(1)
        pixels = seen(data.train.pixels(), data)
        accuracies.append(scorer.accuracy(network, child, pixels, pixels, answers))
    good, bad = accuracies
    assert good > 0.7
    assert bad < good - 0.3


@pytest.mark.parametrize(
    ("text", "samples", "message"),
    [
        ("int4", None, r"--rank-precision must be fp32 or int8\[:FORMAT\], got 'int4'; for example int8:litert"),
        ("fp32:onnx", None, r"--rank-precision must be fp32 or int8"),
        ("int8:", None, r"--rank-precision must be fp32 or int8"),
        ("int8:ncnn", None, r"format ncnn has no int8: .*; choose another precision or format"),
        ("int8:tflite", None, r"no export format 'tflite'; choose from onnx"),
        ("int8", 1, r"--rank-precision int8 needs candidates to rank, but .*; add --samples 24"),
    ],
)
def test_bad_requests(text: str, samples: int | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(dm.DmaskError, match=message):
        dm.search(
            SPACE, "no such data", {"macs": 1e5}, tmp_path / "run", settings=SHORT, samples=samples, rank_precision=text
        )
    assert not (tmp_path / "run").exists()


def test_trials_rank_nothing() -> None:
    with pytest.raises(dm.DmaskError, match="needs candidates to rank"):
        parse_rank_precision("int8", dm.SearchSettings(trials=2), None)
    assert parse_rank_precision("int8", dm.SearchSettings(trials=2), 3) == ("onnx", "int8")


def test_the_command_line_refuses_it_before_it_reads_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "demo", "--data", "none", "--budget", "macs=1M", "-o", str(tmp_path / "run")]
    assert exit_status_of_command([*words, "--rank-precision", "int8"]) == 2
    assert "this search takes the best one by the gates" in " ".join(capsys.readouterr().err.split())
