"""Data sets saved by Hugging Face ``datasets``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmask_mobile.data.load import load_data, open_data
from dmask_mobile.errors import DmaskError

pytestmark = pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")  # dill, of a type of pyarrow


def saved(folder: Path, splits: dict[str, list[int]], labels: str = "label") -> Path:
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image()}
    if labels:
        features[labels] = datasets.ClassLabel(names=["cat", "dog"])
    parts = {}
    for split, of_split in splits.items():
        images = [Image.new("RGB", (20, 20), (100 * label + number, 0, 0)) for number, label in enumerate(of_split)]
        columns = {"image": images} | ({labels: of_split} if labels else {})
        parts[split] = datasets.Dataset.from_dict(columns, datasets.Features(features))
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return folder


def test_saved_splits_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", {"train": [0, 1, 1, 0, 0], "validation": [1, 0], "test": [1]})
    data = load_data(f"hf:{folder}", 16)
    test, _ = open_data(data.spec, data.digest).read("test", 16)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 1, 0, 0]
    assert data.val.labels.tolist() == [1, 0]
    assert data.train.pixels()[:, 0, 0, 0].tolist() == [0, 101, 102, 3, 4]
    assert test.labels.tolist() == [1]
    assert np.isclose(data.mean[1], 0)


def test_other_folders_say_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DmaskError, match="is not a data set written by save_to_disk"):
        load_data(f"hf:{tmp_path}", 16)
    folder = saved(tmp_path / "d", {"train": [0, 1]}, labels="")
    with pytest.raises(DmaskError, match="0 columns of the type ClassLabel; exactly one is needed"):
        load_data(f"hf:{folder}", 16)
    folder = saved(tmp_path / "e", {"train": [0, 1], "extra": [1]})
    with pytest.raises(DmaskError, match="has a split 'extra'; name the splits train, validation and test"):
        load_data(f"hf:{folder}", 16)


def test_without_the_package_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DmaskError, match=r"needs the package 'datasets'; pip install 'dmask-mobile\[hf\]'"):
        load_data(f"hf:{tmp_path}", 16)
