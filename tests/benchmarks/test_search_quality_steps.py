from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_quality import landing
from search_quality.bench import Bench, Network
from search_quality.contenders import Proposal, Tried
from search_quality.images import at_most, divided
from search_quality.measuring import Measured, disagreement
from search_quality.once import CpuClock, Result, once
from search_quality.protocol import QUICK
from search_quality.whole import out_of_reach

from dmask_mobile.data.arrays import ArrayExamples
from dmask_mobile.search.settings import SearchSettings


def test_a_job_is_done_once_for_everything_that_decides_it(tmp_path: Path) -> None:
    done: list[Path] = []

    def job(folder: Path, clock: CpuClock) -> Result:
        done.append(folder)
        return {"number": len(done)}

    assert [once(tmp_path, "kind", {"seed": seed}, job)["number"] for seed in (0, 1, 0)] == [1, 2, 1]


def test_cpu_time_counts_what_was_kept_before_an_interruption(tmp_path: Path) -> None:
    (tmp_path / "cpu.json").write_text('{"seconds": 100}')
    clock = CpuClock(tmp_path / "cpu.json")
    clock("epoch", 1, 2)  # a step: no checkpoint was written
    assert json.loads((tmp_path / "cpu.json").read_text()) == {"seconds": 100}
    clock("train", 1, 2)
    assert json.loads((tmp_path / "cpu.json").read_text())["seconds"] == pytest.approx(clock.seconds(), abs=1)


def _examples(count: int) -> ArrayExamples:
    return ArrayExamples(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1), [i % 2 for i in range(count)], str(count))


def test_a_validation_split_without_a_test_split_is_kept_back_for_the_end() -> None:
    found = divided({"train": _examples(50), "val": _examples(20)})
    assert [len(found[split].labels) for split in ("train", "val", "test")] == [40, 10, 20]
    assert found["test"].name(0) == _examples(20).name(0)
    found = divided({"train": _examples(50)})
    names = [{found[split].name(i) for i in range(len(found[split].labels))} for split in ("train", "val", "test")]
    assert [len(split) for split in names] == [32, 8, 10]
    assert len(set.union(*names)) == 50
    assert len(at_most(found["train"], 5).labels) == 5


def test_a_machine_that_became_slower_as_a_whole_agrees_with_itself() -> None:
    first = np.linspace(1, 2, 20)
    assert disagreement(first, 1.3 * first) == pytest.approx(0)
    assert disagreement(first, np.where(np.arange(20) % 3 == 0, 1.05, 1.0) * first) == pytest.approx(0.05)


def test_a_scaled_network_that_does_not_reach_the_budget_is_left_out() -> None:
    ratios = {"uniform-widths": 1.22, "uniform-depth": 1.01, "mobilenetv3-large": 0.9, "searched-0": 1.3}
    assert out_of_reach(ratios, 0.05) == {"uniform-widths": 1.22, "mobilenetv3-large": 0.9}


@dataclass(frozen=True)
class Scaled:
    """Proposes a network whose latency is twice what it is asked for."""

    key: str
    step: float

    @property
    def identity(self) -> dict[str, Any]:
        return {"key": self.key}

    def propose(self, tried: list[Tried]) -> list[Proposal]:
        scale = tried[-1].scale + self.step if tried else 1.0
        return [Proposal(Network(variant="small", multiplier=2 * scale), scale)]


def test_what_deviates_is_chosen_again_and_the_nearest_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = []

    def measure(bench: Bench, networks: list[Network]) -> Measured:
        sessions.append(len(networks))
        return Measured([3 * network.multiplier for network in networks], 0.0, 2)

    monkeypatch.setattr(landing, "measure", measure)
    monkeypatch.setattr(Bench, "budget", {})
    bench = Bench(tmp_path, QUICK, QUICK.settings[0], {"classes": 10}, "", SearchSettings())
    references = [Network(variant="small", multiplier=value) for value in (0.99, 1.0, 1.01)]
    contenders = [Scaled("lands", -0.25), Scaled("never", -0.04)]
    with ThreadPoolExecutor(1) as pool:
        found = landing.land(contenders, references, bench, pool)
        assert landing.land(contenders, references, bench, pool) == found  # nothing is measured again
    assert sessions == [5, 5, 5, 4, 4]
    assert (found["lands"]["ratio"], found["lands"]["tried"]) == (pytest.approx(1.0), 3)
    assert (found["never"]["ratio"], found["never"]["tried"]) == (pytest.approx(2 * 0.84), 5)
