"""Data sets of torchvision on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmask_mobile.data.load import load_data, open_data
from dmask_mobile.data.torchvision_sets import TorchvisionSource
from dmask_mobile.errors import DmaskError


def write_image_folders(root: Path, splits: tuple[str, ...]) -> None:
    for split in splits:
        for number, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for index in range(3):
                Image.new("RGB", (20, 20), (number * 100 + index, 0, 0)).save(root / split / name / f"{index}.png")


def test_a_set_of_two_splits(tmp_path: Path) -> None:
    """MNIST's files, written in their published form."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = np.arange(count * 784, dtype=np.uint32).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        sizes = np.array([count, 28, 28], ">u4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.tobytes())
    data = load_data(f"torchvision:MNIST:{tmp_path}", 28)
    test, _ = open_data(data.spec, data.digest).read("test", 28)
    assert data.class_names[3] == "3 - three"
    assert (len(data.train), len(data.val), data.flip) == (10, 10, False)
    assert test.labels.tolist() == list(range(10))
    assert test.pixels()[0, 0].flatten().tolist() == [number % 256 for number in range(784)]


def test_a_set_with_named_splits(tmp_path: Path) -> None:
    write_image_folders(tmp_path / "imagenette2-160", ("train", "val"))
    with pytest.raises(DmaskError, match="torchvision's Imagenette is not in"):
        TorchvisionSource(f"Imagenette:{tmp_path}")


@pytest.mark.parametrize("name", ["CocoDetection", "VOCSegmentation", "FakeData"])
def test_sets_without_class_labels_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=f"torchvision's {name}"):
        TorchvisionSource(f"{name}:{tmp_path}")


def test_nothing_is_unpickled_that_is_not_torchvisions(tmp_path: Path) -> None:
    """CIFAR's files are pickles: torchvision reads them only when their MD5 is the published one."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(DmaskError, match="not found or corrupted"):
        TorchvisionSource(f"CIFAR10:{tmp_path}")
