"""Folders as in practice: hidden files, links, loops, other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.data.folder import FolderSource
from dmask_mobile.errors import DmaskError
from tests.dmask_mobile.data.test_load import folder_of_images, write_images


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".thumbnails", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_no_classes(name: str, tmp_path: Path) -> None:
    folder_of_images(tmp_path, ["train", "val"])
    for place in (tmp_path, tmp_path / "train", tmp_path / "train" / "cat"):
        write_images(place / name, 2)
    source = FolderSource(str(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert len(source.splits()["train"].labels) == 20
    assert sum(source.skipped.values()) == 3


def test_other_files_are_counted_by_reason(tmp_path: Path) -> None:
    folder_of_images(tmp_path, [""])
    for name in ("._1.png", ".DS_Store", "Thumbs.db", "notes.txt", "more.txt", "README"):
        (tmp_path / "cat" / name).write_text("x")
    (tmp_path / "cat" / "broken.png").symlink_to(tmp_path / "absent.png")
    source = FolderSource(str(tmp_path))
    assert len(source.splits()["train"].labels) == 20
    assert source.skipped == {
        "hidden file or folder": 2,
        "no image file (.db)": 1,
        "no image file (.txt)": 2,
        "no image file (no suffix)": 1,
        "broken link or special file": 1,
    }


def test_links_multiply_no_images(tmp_path: Path) -> None:
    folder_of_images(tmp_path, [""])
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "cat" / "same.png").symlink_to(tmp_path / "cat" / "0.png")
    (tmp_path / "cat" / "hard.png").hardlink_to(tmp_path / "cat" / "1.png")
    source = FolderSource(str(tmp_path))
    assert source.splits()["train"].labels.count(1) == 10
    names = [source.splits()["train"].name(index) for index in range(len(source.splits()["train"].labels))]
    assert len([name for name in names if name.startswith("cat")]) >= 10
    assert len(set(names)) == len(names)


def test_images_below_a_class_belong_to_it(tmp_path: Path) -> None:
    write_images(tmp_path / "cat" / "2024" / "may", 3)
    write_images(tmp_path / "dog", 2)
    assert FolderSource(str(tmp_path)).splits()["train"].labels == [0, 0, 0, 1, 1]


def test_names_are_relative_and_hold_the_size(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 1)
    write_images(tmp_path / "dog", 1)
    size = (tmp_path / "cat" / "0.png").stat().st_size
    assert FolderSource(str(tmp_path)).splits()["train"].name(0) == f"cat/0.png ({size} bytes)"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(DmaskError, match="no folder of images"):
        FolderSource(str(tmp_path / "x.zip"))


def test_one_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    folder_of_images(tmp_path, ["train", "val"])
    (tmp_path / "val" / "dog" / "x.png").hardlink_to(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(DmaskError, match="are the same file in two classes or splits"):
        FolderSource(str(tmp_path))
