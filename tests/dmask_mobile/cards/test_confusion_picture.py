"""Pictures of confusion matrices, for few classes and for many."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmask_mobile.cards.confusion_picture import write_pictures
from tests.dmask_mobile.cards.test_class_table import record_of
from tests.dmask_mobile.hostile import NAMES


def drawn(folder: Path, confusion: np.ndarray, names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The texts of the SVG file, and the pixels of the PNG file."""
    write_pictures(record_of(confusion.tolist(), names), folder, "test")
    tree = ElementTree.parse(folder / "test_confusion.svg")
    texts = ["".join(text.itertext()) for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    with Image.open(folder / "test_confusion.png") as image:
        return texts, np.asarray(image.convert("RGB"))


def test_two_classes_show_names_and_counts(tmp_path: Path) -> None:
    texts, pixels = drawn(tmp_path, np.array([[93, 7], [0, 0]]), ("cat", "$\\dog$"))
    assert {"93", "7", "0"} <= set(texts)
    assert texts.count("cat") == texts.count("$\\dog$") == 2
    assert {"93% of 100", "no images", "100 validation images, accuracy 93.00% (95%: 86.25% to 96.57%)"} <= set(texts)
    assert min(pixels.shape[:2]) > 300


def test_names_stay_text(tmp_path: Path) -> None:
    texts, _ = drawn(tmp_path, np.eye(len(NAMES), dtype=int), NAMES)
    for name in ("$x^2$ \\frac{", "--- # l", "&lt;o&gt; & <!-- p -->", "\u732b \\u202e t", "<img src=x onerror=aler…"):
        assert name in texts


@pytest.mark.slow
def test_a_thousand_classes_are_a_map_and_the_worst_of_it_in_words(tmp_path: Path) -> None:
    confusion = 48 * np.eye(1000, dtype=int)
    confusion[17, 17], confusion[17, 901] = 8, 40
    texts, pixels = drawn(tmp_path, confusion, tuple(f"class {k}" for k in range(1000)))
    assert " 17% of 48  class 17" in texts  # aligned with 100%
    assert "40  class 17 as class 901" in texts
    assert min(pixels.shape[:2]) > 1000
    assert (tmp_path / "test_confusion.svg").stat().st_size < 2**20
