"""``folder:DIR``: a folder of images for each class, optionally inside folders of splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from dmask_mobile.data.decoding import SUFFIXES
from dmask_mobile.data.source import Examples, FileExamples
from dmask_mobile.data.splits import split_names
from dmask_mobile.errors import DmaskError

NOT_CLASSES = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}  # and all names that begin with a dot


class FolderSource:
    """The images of a folder. Nothing is decoded until it is asked for.

    Args:
        root: contains one folder of images for each class, or folders named train, val (or valid, validation) and test
            that contain such folders; upper and lower case do not matter.

    Raises:
        DmaskError: if there is no such folder, or it has no class folders with images.
    """

    flip = True

    def __init__(self, root: str) -> None:
        self.root = Path(os.path.realpath(root.replace("\0", "")))
        if not self.root.is_dir():
            raise DmaskError(f"no folder of images '{root}'", "give a folder with one folder of images for each class")
        self.skipped: Counter[str] = Counter()
        self._known: dict[tuple[int, int], tuple[Path, Path]] = {}
        self._roots = {_identity(self.root)}  # of classes and splits
        folders = self._folders(self.root)
        self._roots |= set(map(_identity, folders))
        names = split_names([folder.name for folder in folders])
        self._splits = (
            {names[f.name]: self._classes(f) for f in folders} if names else {"train": self._classes(self.root)}
        )
        self.class_names = self._class_names()

    def splits(self) -> Mapping[str, Examples]:
        """The splits that the folder has; see `DataSource`."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        found = {}
        for split, classes in self._splits.items():
            pairs = [(file, numbers[name]) for name, files in classes.items() for file in files]
            found[split] = FileExamples([file for file, _ in pairs], [label for _, label in pairs], self.root)
        return found

    def _class_names(self) -> tuple[str, ...]:
        train = self._splits["train"]
        for split, classes in self._splits.items():
            unknown = sorted(classes.keys() - train.keys())
            if unknown:
                raise DmaskError(
                    f"'{self.root}': the {split} split has the class '{unknown[0]}', which is not in the train split",
                    "give the splits the same classes",
                )
        return tuple(sorted(train))

    def _classes(self, root: Path) -> dict[str, list[Path]]:
        """The image files of each class folder in ``root``, sorted."""
        folders = self._folders(root)
        self._roots |= {_identity(root), *map(_identity, folders)}
        found = {folder.name: sorted(self._images(folder)) for folder in folders}
        empty = [name for name, files in found.items() if not files]
        if empty:
            raise DmaskError(
                f"'{root / empty[0]}' contains no image", "put the images of that class into it, or remove the folder"
            )
        if not found:
            raise DmaskError(
                f"'{root}' contains no class folders with images", "put the images of each class into a folder"
            )
        return found

    def _folders(self, root: Path) -> list[Path]:
        """The folders in ``root``, without those that systems and programs create."""
        found = []
        for entry in _entries(root):
            if not entry.is_dir():
                continue
            if entry.name.startswith(".") or entry.name.lower() in NOT_CLASSES:
                self.skipped["hidden folder"] += 1
            else:
                found.append(root / entry.name)
        return found

    def _images(self, folder: Path) -> Iterator[Path]:
        """The image files in a class folder and below; each file once, even if several links lead to it."""
        known = self._roots - {_identity(folder)}  # a link to one of these adds no further images
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            if _identity(place) in known:
                self.skipped["link to a folder that is read anyway"] += 1
                continue
            known.add(_identity(place))
            for entry in _entries(place):
                if entry.name.startswith(".") or entry.name.lower() in NOT_CLASSES:
                    self.skipped["hidden file or folder"] += 1
                elif entry.is_dir():
                    waiting.append(place / entry.name)
                elif not entry.is_file():
                    self.skipped["broken link or special file"] += 1
                elif (suffix := Path(entry.name).suffix.lower()) not in SUFFIXES:
                    self.skipped[f"no image file ({suffix or 'no suffix'})"] += 1
                else:
                    yield from self._once(place / entry.name, entry.stat(), folder)

    def _once(self, file: Path, status: os.stat_result, folder: Path) -> Iterator[Path]:
        """The file of a class folder, unless it was already found through a link.

        Raises:
            DmaskError: if it was found in another class or split, because its label or split would be ambiguous.
        """
        first, first_folder = self._known.setdefault((status.st_dev, status.st_ino), (file, folder))
        if first is file:
            yield file
        elif first_folder == folder:
            self.skipped["link to an image that is read anyway"] += 1
        else:
            raise DmaskError(f"'{file}' and '{first}' are the same file in two classes or splits", "keep one of them")


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode of a folder, which are the same through any link."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder sorted by name, so that the order is the same on every file system."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
