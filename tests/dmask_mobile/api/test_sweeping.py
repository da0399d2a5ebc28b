"""`api.sweep` with an engine that makes run folders without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dmask_mobile import api
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.sweep import SweepDesign, SweepRecord
from dmask_mobile.sweep import sweep as sweep_module
from dmask_mobile.sweep.design import SweepFolder, planned_runs
from dmask_mobile.sweep.job import Job
from dmask_mobile.sweep.local_engine import Ended
from tests.dmask_mobile.small import SPACE
from tests.dmask_mobile.sweep.design import finish

BUDGETS = {"macs": (100_000, 150_000)}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were started; those with seed 1 fail once."""
    names: list[str] = []

    def engine(jobs: Sequence[Job], num_at_once: int, ended: Ended) -> None:
        for job in jobs:
            names.append(job.name)
            folder = SweepFolder(job.folder.parents[1])
            runs = {run.name: run for run in planned_runs(SweepDesign.read(folder.design_path))}
            if job.name.endswith("seed-1") and names.count(job.name) == 1:
                ended(job, "train ended with status 2")
                continue
            finish(runs[job.name], folder, runs[job.name].budgets["macs"] * 0.99, 0.5)
            ended(job, None)

    def draw(record: SweepRecord, design: SweepDesign, paths: tuple[Path, ...]) -> None:
        for path in paths:
            path.touch()

    monkeypatch.setitem(sweep_module.ENGINES, "local", engine)
    monkeypatch.setattr(sweep_module, "draw_front", draw)
    return names


@pytest.fixture(autouse=True)
def _data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of two classes in the current folder, as ``images``."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    for number in range(4):
        path = Path("images", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def sweep(folder: Path, **changed: Any) -> SweepRecord:
    given = {"space": SPACE, "data": "folder:images", "budgets": BUDGETS, "folder": folder, "seeds": 2, **changed}
    return api.sweep(**given)


def test_it_goes_on_where_it_stopped(tmp_path: Path, started: list[str]) -> None:
    told: list[tuple[str, int, int, str]] = []
    first = sweep(tmp_path / "s", progress=lambda *what: told.append(what))
    assert [point.seed for point in first.points] == [0, 0]
    assert {failed.run: failed.reason for failed in first.failed} == {
        f"runs/macs-{limit}-seed-1": "train ended with status 2" for limit in (100000, 150000)
    }
    assert told == [
        ("sweep", 0, 4, ""),
        ("sweep", 1, 4, "macs-100000-seed-0 accuracy 50.0%"),
        ("sweep", 2, 4, "macs-150000-seed-0 accuracy 50.0%"),
        ("sweep", 3, 4, "macs-100000-seed-1 failed"),
        ("sweep", 4, 4, "macs-150000-seed-1 failed"),
    ]
    assert SweepRecord.read(tmp_path / "s" / "sweep.json") == first
    second = sweep(tmp_path / "s", progress=lambda *what: told.append(what))
    assert started[4:] == ["macs-100000-seed-1", "macs-150000-seed-1"]
    assert told[5] == ("sweep", 2, 4, "done before")
    assert (len(second.points), second.failed) == (4, ())
    assert sweep(tmp_path / "s") == second
    assert len(started) == 6
    assert {path.name for path in (tmp_path / "s").iterdir()} >= {"front.png", "front.svg", "design.json", "space.json"}


def test_the_classes_are_those_of_the_data(tmp_path: Path, started: list[str]) -> None:
    sweep(tmp_path / "s")
    design = SweepDesign.read(tmp_path / "s" / "design.json")
    assert (design.space, design.data) == (SPACE.with_classes(2), f"folder:{Path('images').resolve()}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budgets": {"macs": (100_000, 9e9)}}, r"budget macs=9e\+09 macs is above what 'small' can reach"),
        ({"budgets": {"macs": (100_000, 1)}}, "budget macs=1 macs is below what 'small' can reach"),
        ({"budgets": {"macs": (-1,)}}, "budget 'macs' must be a positive number, got -1"),
        ({"budgets": {"macs": ()}}, r"budgets\.macs: .* at least 1 item"),
        ({"budgets": {}}, "budgets: .* at least 1 item"),
        ({"budgets": {"macs": (2e5, 2e5)}}, "'macs' must contain each value only once"),
        ({"budgets": {"macs": (api.Times(0.5), api.Times(0.5000000001))}}, "'macs' must contain each value only once"),
        ({"budgets": {"latency": (1.0,)}}, "a latency budget needs a latency table"),
        ({"budgets": {"latency": (1.0,)}, "tables": "no.jsonl"}, r"no file 'no\.jsonl'"),
        ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ({"seeds": 501}, r"a sweep has at most 1,000 runs, got 1,002: .*; give fewer seeds or budgets"),
        ({"seeds": 10**12}, "a sweep has at most 1,000 runs, got 2,000,000,000,000"),
        ({"jobs": 1.5}, r"jobs must be an integer of at least 1, got 1\.5"),
        ({"engine": "slurm"}, "no engine 'slurm'; choose one of local, ray"),
        ({"data": "nothing"}, "no data 'nothing'"),
        ({"search_options": {"seed": 3}}, "the sweep sets --seed of 'dmask search' itself"),
        ({"train_options": {"skip_bad": True}}, "the sweep sets --skip-bad of 'dmask train' itself"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    changed: dict[str, Any], message: str, tmp_path: Path, started: list[str]
) -> None:
    with pytest.raises(DmaskError, match=message):
        sweep(tmp_path / "s", **changed)
    assert started == []
    assert list(tmp_path.iterdir()) == []


def test_drift_is_asked_once_and_only_where_a_search_is_left(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def cost_model(name: str, *, check: bool = False, find: Callable[..., Any] = api.cost_model, **options: Any) -> Any:
        asked.extend([name] if check else [])
        return find(name, **options)

    monkeypatch.setattr("dmask_mobile.api.sweeping.cost_model", cost_model)
    for _ in range(3):
        sweep(tmp_path / "s")
    assert asked == ["macs", "macs"]  # the third time everything is searched
    sweep(tmp_path / "t", allow_drift=True)
    assert len(asked) == 2
