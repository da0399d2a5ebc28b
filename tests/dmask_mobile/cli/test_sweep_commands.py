from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from dmask_mobile.cli.sweep_commands import sweep
from dmask_mobile.cli.sweep_tables import front_table, summary_table
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.sweep import SweepRecord
from dmask_mobile.sweep.front import sweep_record
from tests.dmask_mobile.small import SPACE, few_images
from tests.dmask_mobile.sweep.design import DESIGN, finished_sweep
from tests.processes import DMASK, dmask, wait_until


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_option": ["sampels=3"]}, "'dmask search': No such option: --sampels.*see 'dmask search --help'"),
        ({"search_option": ["samples=many"]}, "'dmask search': Invalid value for '--samples'"),
        ({"train_option": ["init=zero"]}, "'dmask train': Invalid value for '--init'"),
        ({"train_option": ["epochs=3"], "train_epochs": 2}, "NAME=VALUE, each name once, got 'epochs=3'"),
        ({"search_option": ["=3"]}, "NAME=VALUE, each name once, got '=3'"),
        ({"budgets": ["macs=1M,2ms"]}, "budget 'macs=2ms': unit 'ms' is not known"),
        ({"budgets": ["macs=1M", "macs=2M"]}, "'macs' is given twice; give all its values at once: macs=A,B,C"),
    ],
)
def test_bad_options_are_found_before_anything_starts(options: dict[str, object], message: str, tmp_path: Path) -> None:
    given: dict[str, object] = {"space": "demo", "data": "glyphs", "budgets": ["macs=1M"], "output": tmp_path / "s"}
    with pytest.raises(DmaskError, match=message):
        sweep(**{**given, **options})  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_tables_show_the_front_and_the_spread(tmp_path: Path) -> None:
    folder = finished_sweep(tmp_path, [(90e3, 0.5), (140e3, 0.7), (98e3, 0.45)])
    record = sweep_record(DESIGN, folder, {"macs": "macs"})
    cells = [[str(text) for text in column.cells] for column in front_table(record).columns]
    assert cells == [
        ["90,000", "140,000"],
        ["50.00%", "70.00%"],
        ["macs 100,000", "macs 150,000"],
        ["runs/macs-100000-seed-0", "runs/macs-150000-seed-0"],
    ]
    cells = [[str(text) for text in column.cells] for column in summary_table(record).columns]
    assert cells == [
        ["macs 100,000", "macs 150,000"],
        ["2", "1"],
        ["47.50% ± 3.54%", "70.00%"],
        ["94,000 ± 5,657", "140,000"],
    ]


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(tmp_path: Path) -> None:
    images = few_images(240).train
    for number, (image, label) in enumerate(zip(images.pixels(), (images.labels % 3).tolist(), strict=True)):
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "data" / str(label) / f"{number}.png")
    SPACE.write(tmp_path / "space.json")
    arguments = (
        f"sweep {tmp_path}/space.json --data folder:{tmp_path}/data --budgets macs=60K --epochs 2 --train-epochs 1"
        f" --batch-size 8 --train-option init=supernet -o {tmp_path}/s"
    ).split()
    run = tmp_path / "s" / "runs" / "macs-60000-seed-0"
    with subprocess.Popen([DMASK, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until((run / "search" / "checkpoint.pt").exists, "the search has a checkpoint")
        process.send_signal(signal.SIGKILL)
    done = dmask(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    record = SweepRecord.from_dict(json.loads(done.stdout), "stdout")
    assert [point.run for point in record.points] == [f"runs/{run.name}"]
    assert record.points[0].on_front
    assert record.points[0].costs["macs"] <= 60_000
    log = (run / "sweep.log").read_text()
    assert "search stopped by SIGTERM" in log  # it outlived the sweep until it had kept its step
    assert [line.split()[-1] for line in log.splitlines() if line.startswith("---")] == ["search", "search", "train"]
    assert json.loads((run / "run.json").read_text())["train_settings"]["init"] == "supernet"
