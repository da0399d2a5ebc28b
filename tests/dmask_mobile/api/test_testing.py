"""The test split is opened once, by `measure_accuracy`."""

from __future__ import annotations

from pathlib import Path

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
    """Red and blue noise: easy to tell apart."""
    random = np.random.default_rng(0)
    for split, count in splits.items():
        for label, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (20, 24, 3))
                pixels[:, :, 2 - 2 * label] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


def trained(tmp_path: Path, splits: dict[str, int]) -> Path:
    data, run = coloured_images(tmp_path / "data", splits), tmp_path / "run"
    settings = SearchSettings(epochs=2, batch_size=16, warmup=0.5)
    api.search(SPACE, str(data), {"macs": 93_600}, run, settings=settings, data_options=DataOptions(flip=False))
    api.train(run, settings=TrainSettings(epochs=4, batch_size=16, learning_rate=0.05))
    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    open_ = Image.open

    def noted(file: object, *args: object, **options: object) -> Image.Image:
        names.append(str(file))
        return open_(file, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", noted)
    return names


def test_the_test_split_is_read_once(tmp_path: Path, opened: list[str]) -> None:
    run = trained(tmp_path, {"train": 40, "val": 10, "test": 20})
    assert not [name for name in opened if "/test/" in name]
    found = api.measure_accuracy(run)
    assert len([name for name in opened if "/test/" in name]) == 40
    assert (found.split, found.num_images, found.times_opened) == ("test", 40, 1)
    assert found.accuracy > 0.9
    assert [sum(row) for row in found.confusion] == [20, 20]
    assert found.class_accuracies() == tuple(found.confusion[k][k] / 20 for k in range(2))
    assert AccuracyRecord.read(RunFolder(run).test_path) == found
    assert api.measure_accuracy(str(run)) == found
    assert len([name for name in opened if "/test/" in name]) == 40
    api.train(run, settings=TrainSettings(epochs=1, batch_size=16), restart=True)
    assert api.measure_accuracy(run).times_opened == 2


def test_the_interval_is_wilsons(tmp_path: Path) -> None:
    """Its ends solve (p - k/n)^2 = z^2 p (1 - p) / n (Wilson, 1927)."""
    found = api.measure_accuracy(trained(tmp_path, {"train": 20, "test": 15}))
    count, share = found.num_images, found.accuracy
    for end in found.interval:
        if 0 < end < 1:
            assert (end - share) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count, rel=1e-4)
    assert found.interval[0] <= share <= found.interval[1]


def test_without_a_test_split_it_is_a_validation_figure(tmp_path: Path) -> None:
    run = trained(tmp_path, {"train": 20, "val": 10})
    record = RunFolder(run).record()
    assert "no test split: accuracies are those of the val split" in record.data_notes
    found = api.measure_accuracy(run)
    assert (found.split, found.num_images, found.accuracy) == ("val", 20, record.accuracy)


def test_data_that_has_changed_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, {"train": 20, "val": 10, "test": 10})
    assert RunFolder(run).record().preprocessing.orientation == "EXIF applied"
    (tmp_path / "data" / "train" / "red" / "0.png").unlink()
    for use in (lambda: api.measure_accuracy(run), lambda: api.train(run, restart=True)):
        with pytest.raises(DmaskError, match="has changed since the run was made"):
            use()


def test_a_run_without_data_has_nothing_to_test(tmp_path: Path) -> None:
    api.start_run(SPACE.child(SPACE.smallest()), tmp_path / "run")
    with pytest.raises(DmaskError, match="was not trained on data that it names"):
        api.measure_accuracy(tmp_path / "run")
