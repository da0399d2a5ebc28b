"""``wds:PATTERN``: WebDataset shards, which are tar files with the files of each example next to each other.

The shards are indexed once and then read at any position, so that training can use its own order and resume in the
middle of an epoch. (The library webdataset reads shards as streams, which cannot be resumed: webdataset#271.)
"""

from __future__ import annotations

import glob
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dmask_mobile.data.decoding import SUFFIXES, open_image
from dmask_mobile.data.source import Examples
from dmask_mobile.data.splits import WORDS
from dmask_mobile.errors import DmaskError

MAX_LABEL_BYTES = 200
MAX_SHARDS = 100_000
MAX_CLASSES = 65_536


class Member(NamedTuple):
    """The position of an image in a shard, and its class as given in the shard."""

    shard: Path
    key: str
    start: int
    size: int
    label: str


@dataclass(frozen=True)
class ShardExamples:
    """One split; see `Examples`."""

    members: tuple[Member, ...]
    class_names: tuple[str, ...]

    @cached_property
    def labels(self) -> list[int]:
        """One label for each example; see `Examples`."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return [numbers[member.label] for member in self.members]

    def image(self, index: int) -> Image.Image:
        """See `Examples`."""
        member = self.members[index]
        with member.shard.open("rb") as file:
            file.seek(member.start)
            return open_image(file.read(member.size))

    def name(self, index: int) -> str:
        """The shard, the key and the size; see `Examples`."""
        member = self.members[index]
        return f"{member.key} in {member.shard.name} ({member.size} bytes)"


class ShardSource:
    """The examples of shards; each has an image and a ``.cls`` file.

    Args:
        pattern: the paths of tar files, with ``{000..123}`` and ``*``. A file whose name begins with train, val or test
            belongs to that split; without such names all images are training images.

    Raises:
        DmaskError: if no file matches, or a shard is truncated or lacks labels.
    """

    flip = True

    def __init__(self, pattern: str) -> None:
        # Links are not resolved, because the name of a link states the split. Each file is used once, even if it
        # matches several parts of the pattern.
        found = [Path(name).absolute() for part in expand(pattern) for name in sorted(glob.glob(part))]
        shards = list(dict.fromkeys(found))
        if not shards:
            raise DmaskError(
                f"no shard matches '{pattern}'", "give a pattern of tar files, for example 'data/train-*.tar'"
            )
        by_split: dict[str, list[Member]] = {}
        for shard in shards:
            by_split.setdefault(split_of(shard), []).extend(index_shard(shard))
        if "train" not in by_split:
            raise DmaskError(f"'{pattern}' has no training shards", "give a pattern that also matches train shards")
        names = {member.label for members in by_split.values() for member in members}
        if all(name.isdecimal() for name in names):
            largest = max(map(int, names))
            if largest >= MAX_CLASSES:
                raise DmaskError(
                    f"'{pattern}' has the class {largest}, allowed are at most {MAX_CLASSES - 1}", "check .cls"
                )
            names = set(map(str, range(largest + 1)))
        self.class_names = tuple(sorted(names, key=lambda name: (int(name) if name.isdecimal() else 0, name)))
        self._splits = {split: ShardExamples(tuple(found), self.class_names) for split, found in by_split.items()}

    def splits(self) -> Mapping[str, Examples]:
        """The splits according to the names of the files; see `DataSource`."""
        return self._splits


def expand(pattern: str) -> list[str]:
    """All paths that ``{A..B}`` stands for; numbers are padded with zeros to the number of digits of A.

    Raises:
        DmaskError: for a range of more than 100,000 shards.

    >>> expand("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    before, brace, rest = pattern.partition("{")
    inside, closing, after = rest.partition("}")
    first, dots, last = inside.partition("..")
    if not brace or not closing or not dots or not (first.isdecimal() and last.isdecimal()):
        return [pattern]
    if len(last) > 9 or int(last) - int(first) >= MAX_SHARDS:
        raise DmaskError(f"'{pattern}' names more than {MAX_SHARDS:,} shards", "give a smaller range")
    ends = expand(after)
    return [f"{before}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1) for end in ends]


def split_of(shard: Path) -> str:
    """The split according to a word in the name of a shard, or otherwise in the name of its folder."""
    words = re.split(r"[^a-z]+", shard.name.lower())
    return next((WORDS[word] for word in words if word in WORDS), WORDS.get(shard.parent.name.lower(), "train"))


def index_shard(shard: Path) -> list[Member]:
    """The positions of the images in a shard.

    Raises:
        DmaskError: for a truncated shard, or an example without an image or a class.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    strange = ""
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                key, suffix = _parts(info.name)
                if not info.isfile():
                    continue
                last = suffix.lower().rpartition(".")[2]
                if last != suffix.lower() and (f".{last}" in SUFFIXES or last == "cls"):
                    strange = f"'{info.name}' has a dot in its key"
                elif key in (images if f".{last}" in SUFFIXES else labels if last == "cls" else ()):
                    strange = f"'{key}' appears twice"
                elif f".{last}" in SUFFIXES:
                    images[key] = (info.offset_data, info.size)
                elif last == "cls":
                    content = tar.extractfile(info)
                    assert content is not None
                    label = content.read(MAX_LABEL_BYTES).decode("utf-8", "replace").strip()
                    labels[key] = str(int(label)) if label.isdecimal() else label
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DmaskError(f"shard '{shard}' is damaged: {error}", "copy it again") from error
    size = shard.stat().st_size
    if size < end or any(start + length > size for start, length in images.values()):
        raise DmaskError(f"shard '{shard}' is truncated after {size:,} bytes", "copy it again")
    lacking = sorted(images.keys() ^ labels.keys())
    if lacking:
        strange = strange or f"'{lacking[0]}' has no {'image' if lacking[0] in labels else '.cls file'}"
    if strange or not images:
        raise DmaskError(
            f"shard '{shard}': {strange or 'it is empty'}",
            "each example needs an image, such as KEY.jpg, and KEY.cls",
        )
    return [Member(shard, key, *images[key], labels[key]) for key in images]


def _parts(name: str) -> tuple[str, str]:
    """The key of a member, and its suffix: the part of the file name after the first dot."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix
