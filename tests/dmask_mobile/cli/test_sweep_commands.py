from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from dmask_mobile.cli.sweep_commands import sweep
from dmask_mobile.cli.sweep_tables import front_table, summary_table
from dmask_mobile.costs.counts import Macs
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.sweep import SweepRecord
from dmask_mobile.sweep.front import sweep_record
from tests.dmask_mobile.small import few_images
from tests.dmask_mobile.sweep.design import DESIGN, finished_sweep
from tests.json_schemas import described
from tests.processes import DMASK, wait_until


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_option": ["sampels=3"]}, "'dmask search': No such option: --sampels.*see 'dmask search --help'"),
        ({"search_option": ["samples=many"]}, "'dmask search': Invalid value for '--samples'"),
        ({"train_option": ["init=zero"]}, "'dmask train': Invalid value for '--init'"),
        ({"train_option": ["epochs=3"], "train_epochs": 2}, "NAME=VALUE, with each name once, got 'epochs=3'"),
        ({"search_option": ["=3"]}, "NAME=VALUE, with each name once, got '=3'"),
        ({"budgets": ["macs=1M,2ms"]}, "budget 'macs=2ms': unknown unit 'ms'"),
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


SPACE = SearchSpace.model_validate(
    {
        "name": "tiny", "classes": 3, "input": {"resolutions": [16]}, "stem": {"widths": [8]}, "last": {"widths": [16]},
        "stages": [{"blocks": 1, "widths": [8], "stride": 2, "expansions": [1, 2, 3], "kernels": [3]}],
    }
)  # fmt: skip
LIMIT = round(sum(Macs().on(SPACE).reachable()) / 2)


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = few_images(120).train
    for number, (image, label) in enumerate(zip(images.pixels(), (images.labels % 3).tolist(), strict=True)):
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "data" / str(label) / f"{number}.png")
    SPACE.write(tmp_path / "space.json")
    options = {
        "data": f"folder:{tmp_path / 'data'}", "budgets": f"macs={LIMIT}", "output": tmp_path / "s", "epochs": 40,
        "train_epochs": 1, "batch_size": 8, "train_option": "init=supernet",
    }  # fmt: skip
    run = tmp_path / "s" / "runs" / f"macs-{LIMIT}-seed-0"
    command = [DMASK, "sweep", str(tmp_path / "space.json")]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until((run / "search" / "checkpoint.pt").exists, "the search has a checkpoint")
        process.send_signal(signal.SIGKILL)
    lists = {name: [options[name]] for name in ("budgets", "train_option")}
    sweep(space=str(tmp_path / "space.json"), **{**options, **lists}, as_json=True)  # type: ignore[arg-type]
    record = SweepRecord.from_dict(described("sweep", capsys.readouterr().out), "stdout")
    assert [(point.run, point.on_front) for point in record.points] == [(f"runs/{run.name}", True)]
    assert record.points[0].costs["macs"] <= LIMIT
    log = (run / "sweep.log").read_text()
    assert "search stopped by SIGTERM" in log  # it outlived the sweep until it had kept its step
    assert [line.split()[-1] for line in log.splitlines() if line.startswith("---")] == ["search", "search", "train"]
    assert json.loads((run / "run.json").read_text())["train_settings"]["init"] == "supernet"
