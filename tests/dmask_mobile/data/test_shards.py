"""WebDataset shards, read at any position."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmask_mobile.data.decoding import as_seen
from dmask_mobile.data.load import load_data
from dmask_mobile.data.shards import ShardSource, expand, split_of
from dmask_mobile.errors import DmaskError


def write_shard(path: Path, examples: list[tuple[str, int | str]], extra: dict[str, bytes] | None = None) -> None:
    """Each example is an image whose colour is its number in the shard."""
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))

        for number, (key, label) in enumerate(examples):
            content = BytesIO()
            Image.new("RGB", (20, 20), (number, 0, 0)).save(content, "PNG")
            add(f"{key}.png", content.getvalue())
            add(f"{key}.cls", str(label).encode())
            add(f"{key}.json", b"{}")
        for name, content in (extra or {}).items():
            add(name, content)


def test_shards_of_splits(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000.tar", [("a/0", 0), ("a/1", 1), ("a/2", 1)])
    write_shard(tmp_path / "train-001.tar", [("b/0", 0), ("b/1", 2)])
    write_shard(tmp_path / "val-000.tar", [("c", 1), ("d", 0)])
    source = ShardSource(f"{tmp_path}/*-{{000..001}}.tar")
    assert source.class_names == ("0", "1", "2")
    train = source.splits()["train"]
    assert list(train.labels) == [0, 1, 1, 0, 2]
    assert list(source.splits()["val"].labels) == [1, 0]
    assert [np.asarray(as_seen(train.image(index)))[0, 0, 0] for index in (4, 2, 0)] == [1, 2, 0]
    assert train.name(4).startswith("b/1 in train-001.tar")
    assert len(load_data(f"wds:{tmp_path}/*.tar", 16).val) == 2


def test_classes_may_be_words(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.tar", [("a", "dog"), ("b", "cat")])
    source = ShardSource(str(tmp_path / "x.tar"))
    assert source.class_names == ("cat", "dog")
    assert list(source.splits()["train"].labels) == [1, 0]


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_shard_that_ends_early(cut: float, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_shard(path, [(str(number), number % 2) for number in range(40)])
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(DmaskError, match=r"shard '.*x.tar'(: '\d+' has no| is truncated| is damaged)"):
        ShardSource(str(path))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"z.png": b"\x89PNG"}, "'z' has no .cls file"),
        ({"z.cls": b"1"}, "'z' has no image"),
        ({"a.cls": b"1"}, "'a' appears twice"),
        ({"z.1.png": b"\x89PNG", "z.1.cls": b"1"}, "'z.1.cls' has a dot in its key"),
    ],
)
def test_half_an_example_is_refused(extra: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_shard(tmp_path / "x.tar", [("a", 0), ("b", 1)], extra)
    with pytest.raises(DmaskError, match=message):
        ShardSource(str(tmp_path / "x.tar"))


def test_no_tar_file_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(DmaskError, match="is damaged"):
        ShardSource(str(tmp_path / "x.tar"))


def test_ranges_are_written_out() -> None:
    assert expand("a{0..2}") == ["a0", "a1", "a2"]
    assert expand("{08..10}-{1..2}") == ["08-1", "08-2", "09-1", "09-2", "10-1", "10-2"]
    assert expand("plain*.tar") == ["plain*.tar"]
    assert expand("{a,b}.tar") == ["{a,b}.tar"]
    with pytest.raises(DmaskError, match="more than 100,000 shards"):
        expand("{0..999999999}")


def test_links_and_overlapping_patterns(tmp_path: Path) -> None:
    """The layout of caches that name files by their content: the name of the link states the split."""
    (tmp_path / "blobs").mkdir()
    write_shard(tmp_path / "blobs" / "aaa", [("a", "00"), ("b", "01")])
    write_shard(tmp_path / "blobs" / "bbb", [("c", 0), ("d", 1)])
    (tmp_path / "train-1.tar").symlink_to(tmp_path / "blobs" / "aaa")
    (tmp_path / "test-1.tar").symlink_to(tmp_path / "blobs" / "bbb")
    splits = ShardSource(f"{tmp_path}/{{1..1}}*.tar".replace("/{1..1}", "/*-{1..10}")).splits()
    assert {name: list(found.labels) for name, found in splits.items()} == {"train": [0, 1], "test": [0, 1]}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-000.tar", "train"),
        ("imagenet1k-validation-00.tar", "val"),
        ("valley-0.tar", "train"),
        ("testimonials-0.tar", "train"),
        ("x/test/0000.tar", "test"),
        ("0000.tar", "train"),
    ],
)
def test_the_split_of_a_shard(name: str, split: str) -> None:
    assert split_of(Path(name)) == split


def test_an_endless_number_of_classes_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.tar", [("a", 0), ("b", 100_000_000_000)])
    with pytest.raises(DmaskError, match="has the class 100000000000, allowed are at most 65535"):
        ShardSource(str(tmp_path / "x.tar"))
