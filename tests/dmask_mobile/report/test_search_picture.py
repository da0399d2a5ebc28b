"""The picture of a search as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import dmask_mobile as dm
from tests.dmask_mobile.report.factory import SPACE, searched_run


def test_a_picture_says_what_it_shows(tmp_path: Path) -> None:
    """The picture of a finished search; matplotlib writes each text as a comment next to its shapes."""
    run = searched_run(tmp_path / "run").path
    drawn = dm.plot_search(run, tmp_path / "a" / "search.svg").read_text()
    gates = [decision.name for decision in SPACE.decisions if len(decision.options) > 1]
    texts = [
        "expected cost / budget",
        "mean gate entropy (1 undecided)",
        "budget",
        "latency",
        "stage1.block3.skip = yes",
    ]
    assert [text for text in texts if f"<!-- {text} -->" not in drawn] == []
    assert [name for name in gates if f"<!-- {name} = " not in drawn] == []
    dm.plot_search(run, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == drawn


def test_a_search_under_way_is_drawn_without_a_choice(tmp_path: Path) -> None:
    folder = searched_run(tmp_path / "run")
    folder.search_result.unlink()
    folder.child_path.unlink()
    path = dm.plot_search(folder.path, tmp_path / "search.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] > 1000
    assert dm.plot_search(folder.path, path) == path  # over a picture of ours


@pytest.mark.parametrize(
    ("name", "message"),
    [("search.pdf", "a picture must be a PNG or SVG file"), ("mine.png", "is not a picture that dmask-mobile drew")],
)
def test_what_is_not_written(name: str, message: str, tmp_path: Path) -> None:
    run = searched_run(tmp_path / "run").path
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(dm.DmaskError, match=message):
        dm.plot_search(run, tmp_path / name)
    (run / "search" / "metrics.jsonl").unlink()
    with pytest.raises(dm.DmaskError, match="has no finished epoch of a search to draw; search first"):
        dm.plot_search(run, tmp_path / "new.png")
