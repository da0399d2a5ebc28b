"""The package as users import it; spaces, data, tables and runs as objects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dmask_mobile as dm
from dmask_mobile import api
from dmask_mobile.data.load import load_data
from dmask_mobile.run import RunFolder
from tests.dmask_mobile.report.factory import whole_run
from tests.dmask_mobile.small import SPACE
from tests.latency_tables.factory import write_table


class Noise:
    """Images of one split."""

    def __init__(self, split: str, count: int) -> None:
        self.split = split
        self.labels = [number % 3 for number in range(count)]

    def image(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 100, (16, 16, 3), np.uint8)
        pixels[..., self.labels[index]] += 150
        return Image.fromarray(pixels)

    def name(self, index: int) -> str:
        return f"{self.split} {index}"


class Source:
    class_names = ("red", "green", "blue")
    flip = False

    def __init__(self, count: int = 96) -> None:
        self.count = count

    def splits(self) -> dict[str, Noise]:
        return {"train": Noise("train", self.count), "val": Noise("val", 300), "test": Noise("test", 30)}


def test_the_package_has_the_names_of_the_api_and_functions_stay_functions() -> None:
    """Three folders have the names of functions: later imports from them must not replace the functions."""
    assert dm.__all__ == api.__all__ == sorted(api.MODULES)
    code = """
import sys
import dmask_mobile as dm
assert not {"torch", "pydantic", "latency_tables", "export"} & set(sys.modules), "importing must stay cheap"
import dmask_mobile.search.settings, dmask_mobile.report.records, dmask_mobile.sweep.job
from dmask_mobile.search.losses import BudgetLoss
for name in dm.__all__:
    assert callable(getattr(dm, name)), name
assert dm.search.__module__ == "dmask_mobile.api.searching"
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dmask_mobile' has no attribute 'serch'"):
        _ = dm.serch


def test_a_run_tells_what_its_folder_holds(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    run = dm.Run(tmp_path / "run")
    assert os.fspath(run) == str(tmp_path / "run")
    assert run == dm.Run(str(tmp_path / "run"))
    assert repr(run) == f"Run({str(tmp_path / 'run')!r})"
    assert run.space == folder.record().space
    assert run.budgets == folder.record().budgets
    assert run.child == folder.child()
    assert run.search_result == folder.result()
    assert run.accuracy == 0.875
    assert run.validation is None
    assert run.test is not None
    assert run.test.accuracy == 0.9
    assert [artifact.label for artifact in run.artifacts] == ["coreml int8", "onnx"]
    assert run.verification is not None
    assert not run.verification.passed
    assert list(run.tables) == ["table"]
    assert dm.status(run) == dm.status(tmp_path / "run")
    folder.verification_path.unlink()
    assert run.verification is None


def test_a_folder_that_is_no_run_is_told_when_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(dm.DmaskError, match="is not a run folder"):
        _ = dm.Run(tmp_path).accuracy


def test_a_table_is_a_path_and_loads_by_its_name(tmp_path: Path) -> None:
    path = write_table(tmp_path / "mine.jsonl", SPACE)
    table = dm.load_table(path)
    assert os.fspath(table) == str(path)
    assert dm.cost_model("latency@mine", [table]).name == "latency@mine"
    assert dm.load_table("epyc-onnxruntime-1thread-demo").head.runtime == "onnxruntime"


def test_the_chain_with_objects(tmp_path: Path) -> None:
    """A space from a file, and a source with arguments, which no text could describe."""
    SPACE.write(tmp_path / "space.json")
    settings = dm.SearchSettings(epochs=1, warmup=0.0, min_gate_steps=1, batch_size=32, trials=1)
    budgets = {"macs": sum(dm.cost_model("macs").on(SPACE.with_classes(3)).reachable()) / 2}
    source = Source()
    run = dm.search(tmp_path / "space.json", source, budgets, tmp_path / "run", settings=settings)
    assert run.record.data is None
    assert run.record.data_digest == load_data(source, 16).digest
    with pytest.raises(dm.DmaskError, match="this run has no record of its data"):
        dm.train(run)
    accuracy = dm.train(run, data=source, settings=dm.TrainSettings(epochs=1, batch_size=32))
    assert accuracy == run.accuracy
    with pytest.raises(dm.DmaskError, match=r"was trained on other data than 'tests\..*:Source'; give the data of its"):
        dm.measure_accuracy(run, data=Source(60))
    assert dm.measure_accuracy(run, data=source).split == "test"
    assert not run.network().training
    (artifact,) = dm.export(run, "onnx")
    assert run.artifacts == (artifact,)
    verification = dm.verify(run, data=source)
    verdicts = {check.quantity: check.verdict for check in verification.checks if check.quantity.startswith("accuracy")}
    assert verdicts["accuracy of the weights (val)"] == "passed"
    assert run.verification == verification
    assert RunFolder(run.path).report_path.exists()


def test_a_sweep_needs_words(tmp_path: Path) -> None:
    with pytest.raises(dm.DmaskError, match="a sweep needs text for its data, got an object; give module:Class"):
        dm.sweep(SPACE, Source(), {"macs": [1e5]}, tmp_path)  # type: ignore[arg-type]


def test_a_source_without_a_part_is_told() -> None:
    class Half:
        class_names = ("a", "b")
        flip = False

    with pytest.raises(dm.DmaskError, match=r"data '.*Half' has no 'splits'"):
        load_data(Half(), 16)  # type: ignore[arg-type]
