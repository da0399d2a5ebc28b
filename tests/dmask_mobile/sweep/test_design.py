from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.sweep import SweepDesign
from dmask_mobile.sweep.design import SweepFolder, planned_runs, search_arguments, train_arguments
from tests.dmask_mobile.sweep.design import DESIGN


def test_every_combination_runs_with_every_seed_and_the_first_seed_first() -> None:
    design = DESIGN.model_copy(update={"budgets": {"latency": (4.0, 6.5), "a b/c": (1.0,)}, "seeds": (0, 1)})
    runs = planned_runs(design)
    assert [(dict(run.budgets), run.seed) for run in runs] == [
        ({"latency": 4.0, "a b/c": 1.0}, 0),
        ({"latency": 6.5, "a b/c": 1.0}, 0),
        ({"latency": 4.0, "a b/c": 1.0}, 1),
        ({"latency": 6.5, "a b/c": 1.0}, 1),
    ]
    assert runs[1].name == "latency-6.5-a_b_c-1-seed-0"


def test_a_value_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'macs' must contain each value only once, got \(2\.0, 2\.0\)"):
        SweepDesign.model_validate(DESIGN.model_dump() | {"budgets": {"macs": (2.0, 2.0)}})


def test_runs_are_commands_of_ours(tmp_path: Path) -> None:
    update = {
        "budgets": {"latency": (0.1,), "macs": (1.5e6,)}, "tables": {"pixel": "0" * 64}, "precision": "int8",
        "search_options": {"epochs": "4"}, "train_options": {"ema": True, "compile": False},
    }  # fmt: skip
    design = DESIGN.model_copy(update=update)
    folder, (run, _) = SweepFolder(tmp_path), planned_runs(design)
    reading = DataOptions(memory_bytes=2**29, flip=False, workers=2)
    assert search_arguments(design, run, folder, reading) == (
        "search", f"{tmp_path}/space.json", "--data=glyphs", f"--output={tmp_path}/runs/{run.name}", "--seed=0",
        "--budget=latency=0.1ms", "--budget=macs=1500000", f"--table={tmp_path}/tables/pixel.jsonl",
        "--precision=int8", "--allow-drift", "--emulated", "--memory=0.5", "--workers=2", "--no-flip", "--epochs=4",
    )  # fmt: skip
    assert train_arguments(design, run, folder, DataOptions()) == (
        "train", f"{tmp_path}/runs/{run.name}", "--seed=0", "--ema", "--no-compile"
    )  # fmt: skip


def test_a_begun_folder_holds_the_design_the_space_its_weights_and_the_tables(tmp_path: Path) -> None:
    table, weights = tmp_path / "pixel.jsonl", tmp_path / "net.safetensors"
    table.write_text("rows")
    weights.write_bytes(b"tensors")
    design = DESIGN.model_copy(update={"tables": {"pixel": hashlib.sha256(b"rows").hexdigest()}})
    folder = SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    for _ in range(2):  # the second time it goes on
        folder.begin(design, {"pixel": table}, design.space.with_classes(7), weights)
    assert SweepDesign.read(folder.design_path) == design
    assert SearchSpace.read(folder.space_path) == design.space.with_classes(7)  # those of the weights
    assert (folder.path / "net.safetensors").read_bytes() == b"tensors"
    assert folder.table_path("pixel").read_text() == "rows"


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"budgets": {"macs": (100_000.0,)}}, r"budgets\.macs is \[100000\.0, 150000\.0\] there, \[100000\.0\] now"),
        ({"seeds": (0,)}, r"seeds is \[0, 1\] there, \[0\] now"),
        ({"train_options": {"epochs": "9"}}, r"train_options\.epochs is None there, '9' now"),
        ({"data_digest": "1" * 16}, r"data_digest is '0000000000000000' there, '1111111111111111' now"),
    ],
)
def test_other_settings_are_refused_by_name(update: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.begin(DESIGN, {}, DESIGN.space)
    with pytest.raises(
        DmaskError, match=f"is a sweep with other settings: {message}; use the settings with which it was started"
    ):
        folder.begin(DESIGN.model_copy(update=update), {}, DESIGN.space)


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DmaskError, match=r"is not a sweep and contains 'photo\.jpg'; choose a new folder with -o"):
        SweepFolder(tmp_path).begin(DESIGN, {}, DESIGN.space)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
