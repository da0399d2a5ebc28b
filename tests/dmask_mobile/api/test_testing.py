"""The test split is opened once, by `measure_accuracy`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from dmask_mobile import api
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.data import DataOptions
from dmask_mobile.run import RunFolder
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.train import TrainSettings
from tests.dmask_mobile.small import SPACE


def coloured_images(root: Path, splits: dict[str, int]) -> Path:
    """Red and blue noise, which are easy to distinguish."""
    random = np.random.default_rng(0)
    for split, count in splits.items():
        for label, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (20, 24, 3))
                pixels[:, :, 2 - 2 * label] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


def trained(folder: Path, splits: dict[str, int]) -> Path:
    data, run = coloured_images(folder / "data", splits), folder / "run"
    settings = SearchSettings(epochs=2, batch_size=16, warmup=0.5, trials=1)
    api.search(SPACE, str(data), {"macs": 93_600}, run, settings=settings, data_options=DataOptions(flip=False))
    api.train(run, settings=TrainSettings(epochs=6, batch_size=16, learning_rate=0.05))
    return run


@contextmanager
def noting_opened_images() -> Iterator[list[str]]:
    names: list[str] = []
    open_ = Image.open

    def noted(file: object, *args: object, **options: object) -> Image.Image:
        names.append(str(file))
        return open_(file, *args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", noted)
        yield names


def of_test(names: list[str]) -> list[str]:
    return [name for name in names if "/test/" in name]


class Trained(NamedTuple):
    """A run of data with all splits, and the images that its search and its training opened."""

    run: Path
    data: Path
    opened: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("whole")
    with noting_opened_images() as opened:
        run = trained(folder, {"train": 40, "val": 10, "test": 20})
    return Trained(run, folder / "data", opened)


@pytest.fixture
def run(whole: Trained, tmp_path: Path) -> Path:
    shutil.copytree(whole.run, tmp_path / "run")
    return tmp_path / "run"


def test_the_test_split_is_read_once(whole: Trained, run: Path) -> None:
    assert not of_test(whole.opened)
    with noting_opened_images() as opened:
        found = api.measure_accuracy(run)
        assert len(of_test(opened)) == len(opened) == 40
        assert (found.split, found.num_images, found.times_opened) == ("test", 40, 1)
        assert found.accuracy > 0.9
        assert [sum(row) for row in found.confusion] == [20, 20]
        assert found.class_accuracies() == tuple(found.confusion[k][k] / 20 for k in range(2))
        assert AccuracyRecord.read(RunFolder(run).test_path) == found
        assert api.measure_accuracy(str(run)) == found
        api.train(run, settings=TrainSettings(epochs=1, batch_size=16), restart=True)
        assert len(of_test(opened)) == 40
    assert api.measure_accuracy(run).times_opened == 2


def test_nothing_else_opens_it(run: Path) -> None:
    with noting_opened_images() as opened:
        api.export(run, "onnx", "int8")
        api.write_card(run, license_name="mit")
        assert opened
        assert not of_test(opened)
    assert not RunFolder(run).test_openings_path.exists()


def test_only_testing_and_verifying_can_open_it() -> None:
    """A sweep consists of searches and trainings in separate processes; `load_data` reads train and val."""
    root = Path(api.__file__).parents[1]
    users = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if "opened_data(" in path.read_text()}
    assert users == {"api/run_data.py", "api/testing.py", "api/verified_images.py"}
    openers = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if "open_data(" in path.read_text()}
    assert openers == {"api/run_data.py", "data/load.py"}


def test_a_run_describes_itself(run: Path) -> None:
    names = {"val.json", "val_classes.csv", "val_confusion.csv", "val_confusion.png", "val_confusion.svg"}
    assert names <= {path.name for path in run.iterdir()}
    val, record = AccuracyRecord.read(run / "val.json"), RunFolder(run).record()
    assert (val.split, val.accuracy, val.num_images, val.num_training_images) == ("val", record.accuracy, 20, 80)
    assert val.weights_sha256 == record.weights_sha256
    card = run / "README.md"
    assert "a **validation figure**" in card.read_text()
    api.measure_accuracy(run)
    assert "top-1 on 40 test images" in card.read_text()
    assert (run / "test_confusion.svg").exists()
    (run / "test_confusion.png").unlink()  # as in a run of an earlier version
    assert api.write_card(run, license_name="mit") == (card, None)
    assert (run / "test_confusion.png").exists()
    api.export(run, "onnx")
    assert "license: mit\n" in card.read_text()
    assert "- onnx\n" in card.read_text()
    card.write_text("mine")
    notes: list[str] = []
    api.export(run, "onnx", progress=lambda stage, done, total, note="": notes.append(note))
    assert card.read_text() == "mine"
    assert notes[-1] == f"model card in '{run}/README.generated.md'; '{card}' was edited by hand and is kept"
    with pytest.raises(DmaskError, match="a licence is a line of 1 to 1000 characters, got ''"):
        api.write_card(run, license_name="")


def test_a_problem_with_the_card_does_not_fail_the_command(
    run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dmask_mobile"), "propagate", True)  # a command line has taken its messages
    (run / "val.json").write_text("{")
    api.export(run, "onnx")
    assert caplog.messages[-1].startswith("no model card: cannot read")
    with pytest.raises(DmaskError, match="cannot read"):
        api.write_card(run)


def test_an_interrupted_opening_counts(run: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", interrupt)
        with pytest.raises(KeyboardInterrupt):
            api.measure_accuracy(run)
    assert not RunFolder(run).test_path.exists()
    assert api.measure_accuracy(run).times_opened == 2


def test_without_a_test_split_it_is_a_validation_figure(tmp_path: Path) -> None:
    run = trained(tmp_path, {"train": 20, "val": 10})
    record = RunFolder(run).record()
    assert "no test split: accuracies are those of the val split" in record.data_notes
    with noting_opened_images() as opened:
        found = api.measure_accuracy(run)
    assert (found.split, found.num_images, found.accuracy) == ("val", 20, record.accuracy)
    assert found.times_opened == 0
    assert len(opened) == 20
    assert not [name for name in opened if "/train/" in name]


@pytest.mark.slow
def test_data_that_has_changed_is_refused(whole: Trained, run: Path) -> None:
    assert RunFolder(run).record().preprocessing.orientation == "EXIF applied"
    image = whole.data / "train" / "red" / "0.png"
    content = image.read_bytes()
    image.unlink()
    try:
        for use in (lambda: api.measure_accuracy(run), lambda: api.train(run, restart=True)):
            with pytest.raises(DmaskError, match="has changed since the run was made"):
                use()
    finally:
        image.write_bytes(content)


def test_a_run_without_data_has_nothing_to_test(tmp_path: Path) -> None:
    api.start_run(SPACE.child(SPACE.smallest()), tmp_path / "run")
    with pytest.raises(DmaskError, match="has no training with known data"):
        api.measure_accuracy(tmp_path / "run")
