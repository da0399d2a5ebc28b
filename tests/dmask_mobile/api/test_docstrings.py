"""The examples of the public docstrings run, one after the other, in a folder with some photos."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dmask_mobile as dm

STEPS = ("load_space", "load_table", "profile", "search", "train", "measure_accuracy", "export", "verify", "report",
         "status", "plot_search", "write_card", "start_run", "Run")  # fmt: skip
WITHOUT = {
    "check_device",
    "demo",
    "evaluate_table",
    "examine_installation",
    "list_devices",
    "load_cost",
    "profile_missing",
    "sweep",
}
"""Examples that need minutes, a device or a file of the user."""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has a folder ``photos`` with noise in three colours; a verification needs 256 images."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        for split, count in (("train", 40), ("val", 90)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (32, 32, 3), np.uint8)
                pixels[..., 2 - label] += 150
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)


def test_every_function_has_an_example() -> None:
    functions = {name for name in dm.__all__ if name[0].islower()}
    without = {name for name in functions if ">>>" not in (getattr(dm, name).__doc__ or "")}
    assert without == WITHOUT
    assert set(STEPS) <= set(dm.__all__)


@pytest.mark.slow
def test_the_examples_run(photos: None) -> None:
    names = [*STEPS, *(name for name in dm.__all__ if name not in STEPS)]
    objects: list[tuple[str, Any]] = [("dmask_mobile", dm), *((name, getattr(dm, name)) for name in names)]
    runner, found = (
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE),
        doctest.DocTestFinder(recurse=False),
    )
    for name, item in objects:
        for test in found.find(item, name, module=False, globs={"dm": dm}):
            said: list[str] = []
            assert runner.run(test, out=said.append).failed == 0, "".join(said)
    assert runner.tries > 2 * len(STEPS)
