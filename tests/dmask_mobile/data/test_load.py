"""From the text for data to images: splits, checks, memory, normalization."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmask_mobile.data.batches import batches
from dmask_mobile.data.fashion_mnist import FASHION_MNIST_FOLDER
from dmask_mobile.data.images import ImageData, ImageSet, normalized, split_for_search
from dmask_mobile.data.load import load_data, open_data
from dmask_mobile.data.registry import absolute_spec, open_source
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.data import DataOptions

TWO_CLASSES = ("cat", "dog")


def write_images(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def folder_of_images(root: Path, parts: list[str], count: int = 10) -> Path:
    for seed, part in enumerate(parts):
        for number, name in enumerate(TWO_CLASSES):
            write_images(root / part / name, count, seed * 10 + number)
    return root


@pytest.fixture(scope="module")
def glyphs() -> ImageData:
    return load_data("glyphs", 24)


def test_glyphs_at_any_resolution(glyphs: ImageData) -> None:
    assert glyphs.train.pixels(torch.arange(2)).shape == (2, 3, 24, 24)
    assert glyphs.class_names == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert len(glyphs.train) + len(glyphs.val) > 10_000
    assert set(glyphs.train.labels.tolist()) == set(glyphs.val.labels.tolist()) == set(range(36))
    assert torch.equal(load_data("glyphs", 24).train.pixels(), glyphs.train.pixels())
    larger = open_source("glyphs").splits()["train"].at(48)  # type: ignore[attr-defined]
    assert larger.image(0).size == (48, 48)


def test_normalized_training_images_have_mean_0_and_deviation_1(glyphs: ImageData) -> None:
    pixels = normalized(glyphs.train.pixels(), glyphs)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    source = open_source("fashion-mnist")
    splits = source.splits()
    assert {name: np.bincount(found.labels).tolist() for name, found in splits.items()} == {
        "train": [6000] * 10,
        "test": [1000] * 10,
    }
    assert source.class_names[9] == "Ankle boot"
    pixels = np.asarray(splits["train"].images) / 255  # type: ignore[attr-defined]
    assert pixels.mean() == pytest.approx(0.2860, abs=1e-4)  # the data set's published mean and deviation
    assert pixels.std() == pytest.approx(0.3530, abs=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fashion-mnist:{tmp}", r"'train-images-idx3-ubyte.gz' is missing .*; install Debian's package"),
        ("glyphs:{tmp}", "no TrueType font with digits and capitals"),
        ("{tmp}", "contains no class folders with images"),
        ("folder:{tmp}/absent", r"no folder of images '.*absent'"),
        ("folder", "does not say where the files are; give folder:DIR"),
        ("nothing-like-it", r"no data 'nothing-like-it'; give folder:DIR, torchvision:NAME:DIR"),
        ("torchvision:Nothing:{tmp}", "no torchvision data set 'Nothing:"),
        ("torchvision:CIFAR10:{tmp}", r"torchvision's CIFAR10 is not in '.*': Dataset not found or corrupted"),
        ("wds:{tmp}/*.tar", "no shard matches"),
        ("no_such_module:Class", r"data 'no_such_module:Class': making it raised ModuleNotFoundError: No module named"),
        ("json:JSONDecoder", r"data 'json:JSONDecoder' has no 'class_names'"),
    ],
)
def test_data_that_is_not_there(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=message):
        load_data(spec.replace("{tmp}", str(tmp_path)), 16)


@pytest.mark.parametrize(
    ("folders", "sizes"),
    [
        (["train", "val"], (20, 20, None)),
        (["train", "valid", "test"], (20, 20, 20)),
        (["Training", "Validation"], (20, 20, None)),
        (["TRAIN", "Test"], (16, 4, 20)),
        (["train"], (16, 4, None)),
        ([""], (16, 4, None)),
    ],
)
def test_folders_of_splits_are_no_classes(
    folders: list[str], sizes: tuple[int, int, int | None], tmp_path: Path
) -> None:
    spec = str(folder_of_images(tmp_path, folders))
    data, opened = load_data(spec, 16), open_data(spec, None)
    test = opened.read("test", 16)[0] if "test" in opened.splits else None
    assert data.class_names == TWO_CLASSES
    assert (len(data.train), len(data.val), test and len(test)) == sizes
    assert ("no test split: accuracies are those of the val split" in data.notes) == (sizes[2] is None)
    automatic = [note for note in data.notes if "no val split: 4 of 20 training images, a fifth of each class" in note]
    assert bool(automatic) == (sizes[1] == 4)
    assert torch.bincount(data.val.labels).tolist() == [sizes[1] // 2] * 2  # stratified


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train", "car"):
        write_images(tmp_path / name, 5)
    assert load_data(str(tmp_path), 16).class_names == ("bus", "car", "train")


def test_only_asking_for_the_test_split_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = str(folder_of_images(tmp_path, ["train", "val", "test"]))
    opened: list[str] = []
    open_ = Image.open

    def noted(file: Path, *args: object, **options: object) -> Image.Image:
        opened.append(str(file))
        return open_(file, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", noted)
    data = load_data(spec, 16)
    list(batches(data.train, data, 8, seed=0))
    data.val.pixels()
    assert len(opened) == 40
    assert not [path for path in opened if "/test/" in path]
    closed = open_data(spec, data.digest)
    assert torch.equal(closed.read("val", 16)[0].pixels(), data.val.pixels())
    assert len(opened) == 60
    assert not [path for path in opened if "/test/" in path]
    closed.read("test", 16)
    assert len([path for path in opened if "/test/" in path]) == 20


def test_the_test_split_of_other_data_is_refused(tmp_path: Path) -> None:
    data = load_data(str(folder_of_images(tmp_path, ["train", "test"])), 16)
    write_images(tmp_path / "test" / "cat", 3, seed=99, size=(50, 50))
    with pytest.raises(DmaskError, match="has changed since the run was made"):
        open_data(data.spec, data.digest)


def test_data_is_named_by_its_content(tmp_path: Path) -> None:
    first = folder_of_images(tmp_path / "a" / "photos", [""])
    other = folder_of_images(tmp_path / "b" / "photos", [""])
    assert load_data(str(first), 16).digest == load_data(str(other), 16).digest  # the same files elsewhere
    write_images(other / "dog", 1, seed=5, size=(31, 31))
    assert load_data(str(first), 16).digest != load_data(str(other), 16).digest
    fonts = tmp_path / "fonts"
    fonts.mkdir()
    from dmask_mobile.data.glyphs import MATPLOTLIB_FONTS

    for name in ("DejaVuSans.ttf", "DejaVuSerif.ttf"):
        (fonts / name).symlink_to(MATPLOTLIB_FONTS / name)
    assert load_data(f"glyphs:{fonts}", 16).digest != load_data("glyphs", 16).digest


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_images(tmp_path / "photos", [""])
    monkeypatch.chdir(tmp_path)
    assert load_data("photos", 16).spec == f"folder:{tmp_path / 'photos'}"
    assert absolute_spec("torchvision:CIFAR10:data") == f"torchvision:CIFAR10:{tmp_path / 'data'}"
    assert absolute_spec("wds:a-{0..1}.tar") == f"wds:{tmp_path / 'a-{0..1}.tar'}"
    assert absolute_spec("glyphs") == "glyphs"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("memory_bytes", [0, 10 * 3 * 16 * 16, 2**30])
def test_memory_and_workers_change_no_pixel(workers: int, memory_bytes: int, tmp_path: Path) -> None:
    spec = str(folder_of_images(tmp_path, ["train", "val"]))
    wanted = load_data(spec, 16)
    found = load_data(spec, 16, DataOptions(memory_bytes=memory_bytes, workers=workers))
    assert len(found.train.pictures.kept) + len(found.val.pictures.kept) == min(40, memory_bytes // (3 * 16 * 16))
    assert torch.equal(found.train.pixels(), wanted.train.pixels())
    assert found.mean == pytest.approx(wanted.mean, rel=1e-12)
    for ours, theirs in zip(batches(found.train, found, 8, 1), batches(wanted.train, wanted, 8, 1), strict=True):
        torch.testing.assert_close(ours[:2], theirs[:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("memory_bytes", [0, 2**30])
def test_an_image_that_does_not_decode_is_named_or_counted(memory_bytes: int, tmp_path: Path) -> None:
    spec = str(folder_of_images(tmp_path, ["train", "val"]))
    (tmp_path / "train" / "dog" / "5.png").write_bytes(b"\x89PNG, but no more")
    options = DataOptions(memory_bytes=memory_bytes)
    with pytest.raises(DmaskError, match=r"image 'train/dog/5.png \(17 bytes\)' cannot be decoded: .*--skip-bad"):
        list(batches((data := load_data(spec, 16, options)).train, data, 8, 0))
    data = load_data(spec, 16, options.model_copy(update={"skip_bad": True}))
    assert (len(data.train), len(data.val)) == (19, 20)
    assert "train: left out 1 that cannot be decoded, the first is 'train/dog/5.png (17 bytes)'" in data.notes
    assert sum(len(batch.labels) for batch in batches(data.train, data, 19, 0)) == 19


def test_one_image_a_class_and_a_class_that_val_lacks(tmp_path: Path) -> None:
    for name in TWO_CLASSES:
        write_images(tmp_path / "one" / name, 1)
    with pytest.raises(DmaskError, match="has one image a class and no val split"):
        load_data(str(tmp_path / "one"), 16)
    write_images(tmp_path / "two" / "cat", 1)
    write_images(tmp_path / "two" / "dog", 3)
    data = load_data(str(tmp_path / "two"), 16)
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.val.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: write_images(root / "val" / "cow", 2),
            "the val split has the class 'cow', which is not in the train split",
        ),
        (lambda root: (root / "train" / "empty").mkdir(), r"'.*/train/empty' contains no image"),
    ],
)
def test_classes_that_do_not_fit(change: object, message: str, tmp_path: Path) -> None:
    folder_of_images(tmp_path, ["train", "val"])
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(DmaskError, match=message):
        load_data(str(tmp_path), 16)


def test_one_class_is_none(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 5)
    with pytest.raises(DmaskError, match="has 1 class: cat; a classifier needs at least two"):
        load_data(str(tmp_path), 16)


def test_constant_images_have_a_deviation(tmp_path: Path) -> None:
    for name in TWO_CLASSES:
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (20, 20), (100, 100, 100)).save(tmp_path / name / f"{number}.png")
    data = load_data(str(tmp_path), 16)
    assert data.std == (1e-3,) * 3
    assert bool(normalized(data.train.pixels(), data).isfinite().all())


MINE = """
from dmask_mobile.data.source import FileExamples
from pathlib import Path
class Mine:
    class_names, flip = ("cat", "dog"), False
    def splits(self):
        files = sorted(Path({root!r}).glob("*/*.png"))
        return {{"train": FileExamples(files, [int(file.parent.name == "dog") for file in files])}}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder_of_images(tmp_path / "images", [""])
    (tmp_path / "my_own_data.py").write_text(MINE.format(root=str(tmp_path / "images")))
    monkeypatch.chdir(tmp_path)
    return "my_own_data:Mine"  # type: ignore[return-value]


def test_a_source_of_your_own(own: str) -> None:
    data = load_data(own, 16)
    assert (data.class_names, data.flip, len(data.train), len(data.val)) == (TWO_CLASSES, False, 16, 4)
    assert load_data(own, 16, DataOptions(flip=True)).flip


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "    class_names, flip = ('a', 'b'), False\n    def splits(self): raise SystemExit(0)",
            r"splits\(\) raised SystemExit: 0",
        ),
        (
            "    class_names, flip = ('a', 'b'), False\n    def splits(self): return self.files",
            r"splits\(\) raised AttributeError: ",
        ),
        (
            "    flip = False\n    class_names = property(lambda self: 1 / 0)",
            r"its attributes raised ZeroDivisionError: ",
        ),
        ("    def __init__(self): exit(3)", r"making it raised SystemExit: 3"),
    ],
)
def test_what_a_source_of_your_own_raises_is_told_as_its_own(
    broken: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"broken_data_{abs(hash(broken))}"
    (tmp_path / f"{module}.py").write_text(f"class Broken:\n{broken}\n")
    monkeypatch.chdir(tmp_path)
    for read in (load_data, lambda data, _: open_data(data, None)):
        with pytest.raises(DmaskError, match=f"^data '{module}:Broken': {message}"):
            read(f"{module}:Broken", 16)


def test_search_split_is_80_to_20_without_overlap(glyphs: ImageData) -> None:
    for_weights, for_gates = split_for_search(glyphs.train, 0.2, torch.Generator().manual_seed(0))
    assert len(for_gates) == pytest.approx(0.2 * len(glyphs.train), abs=1)
    both = torch.cat([for_weights.numbers, for_gates.numbers])
    assert torch.equal(both.sort().values, glyphs.train.numbers.sort().values)


def test_batches_depend_on_their_seed_alone(glyphs: ImageData) -> None:
    first = next(iter(batches(glyphs.train, glyphs, 8, seed=3)))
    torch.rand(5)  # somebody else draws
    again = next(iter(batches(glyphs.train, glyphs, 8, seed=3)))
    other = next(iter(batches(glyphs.train, glyphs, 8, seed=4)))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    data = load_data(str(folder_of_images(tmp_path, ["train", "val"], count=2)), 16)
    (only,) = batches(data.train, data, 128, seed=0)
    assert len(only[1]) == 4


def test_images_in_memory_are_an_image_set() -> None:
    images, labels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8), torch.arange(5)
    found = ImageSet.in_memory(images, labels).subset(torch.tensor([3, 1]))
    assert torch.equal(found.pixels(), images[[3, 1]])
    assert found.pixels(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 8, 8)


def test_bad_images_that_are_a_chunk_of_their_own_are_left_out(tmp_path: Path) -> None:
    folder_of_images(tmp_path, ["train", "val"], count=33)  # chunks of 64 and of 2
    for name in ("31.png", "32.png"):
        (tmp_path / "train" / "dog" / name).write_bytes(b"")
    (tmp_path / "train" / "dog" / "9.png").write_bytes(b"")
    assert len(load_data(str(tmp_path), 8, DataOptions(skip_bad=True)).train) == 63


@pytest.mark.parametrize("memory_bytes", [0, 2**30])
@pytest.mark.parametrize(
    ("split", "message"), [("val", "val split has no image that"), ("train/dog", "train split has no image of class 1")]
)
def test_a_split_or_class_that_does_not_decode_at_all(
    split: str, message: str, memory_bytes: int, tmp_path: Path
) -> None:
    folder_of_images(tmp_path, ["train", "val"], count=3)
    for file in (tmp_path / split).rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DmaskError, match=message):
        load_data(str(tmp_path), 8, DataOptions(skip_bad=True, memory_bytes=memory_bytes))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_gone_is_named(workers: int, tmp_path: Path) -> None:
    data = load_data(str(folder_of_images(tmp_path, ["train", "val"])), 8, DataOptions(memory_bytes=0, workers=workers))
    (tmp_path / "train" / "cat" / "3.png").unlink()
    with pytest.raises(DmaskError, match=r"image 'train/cat/3.png \(missing\)' cannot be decoded: .*No such file"):
        data.train.pixels()


def test_what_sources_of_others_raise_is_a_bad_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's folders decode images themselves, and raise Pillow's error instead of ours."""
    folder_of_images(tmp_path / "all", [""], count=4)
    (tmp_path / "all" / "dog" / "2.png").write_bytes(b"x")
    spec = f"torchvision:ImageFolder:{tmp_path / 'all'}"
    with pytest.raises(DmaskError, match=r"image 'ImageFolder train \d' cannot be decoded: not an image"):
        load_data(spec, 8)
    data = load_data(spec, 8, DataOptions(skip_bad=True))
    assert len(data.train) + len(data.val) == 7


@pytest.mark.parametrize("labels", [[0.9, 1.7], ["cat", "dog"], [[0, 1], [1, 0]], [None, 1]])
def test_labels_are_whole_numbers(labels: list[object], tmp_path: Path) -> None:
    from dmask_mobile.data.load import check_splits
    from dmask_mobile.data.source import FileExamples

    examples = FileExamples([tmp_path / "a", tmp_path / "b"], labels)  # type: ignore[arg-type]
    with pytest.raises(DmaskError, match="labels must be a list of integers"):
        check_splits("mine", TWO_CLASSES, {"train": examples})
    with pytest.raises(DmaskError, match="there are 2 image files, but 1 labels"):
        FileExamples([tmp_path / "a", tmp_path / "b"], [0])


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="the folders val, validation all have names of the val split"):
        load_data(str(folder_of_images(tmp_path, ["train", "val", "validation"])), 8)


def test_options_that_are_not_said_stay_as_they_were() -> None:
    before = DataOptions(flip=False, skip_bad=True)
    assert before.with_said(DataOptions(memory_bytes=5)) == DataOptions(flip=False, skip_bad=True, memory_bytes=5)
    assert before.with_said(None) == before


def test_what_was_read_and_skipped_is_told(tmp_path: Path) -> None:
    spec = str(folder_of_images(tmp_path, ["train", "val"]))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    told: list[str] = []
    load_data(spec, 16, progress=lambda stage, done, total, note="": told.append(note) if stage == "data" else None)
    assert told == [
        "20 training and 20 validation images of 2 classes; 0 MiB in memory; training mirrors images;"
        " no test split: accuracies are those of the val split; skipped 1 x no image file (.txt)"
    ]
