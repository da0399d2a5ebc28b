"""The command line as users meet it: every bad input, one message, status 2, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dmask_mobile.records.space import load_space
from tests.json_schemas import described
from tests.latency_tables.factory import edit_head, local_head, write_table
from tests.processes import DMASK, dmask, run_command

SPACE = load_space("demo").with_classes(2)

pytestmark = pytest.mark.slow  # a process for each command, which imports torch


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two classes of a few images."""
    root = tmp_path_factory.mktemp("cli")
    for index, name in enumerate(("cat", "dog")):
        (root / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40, 32), (255 * index, 20 * number, 99)).save(root / "data" / name / f"{number}.png")
    return root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.jsonl", SPACE)


def search(
    folder: Path, table: Path, run: Path, *more: str, budget: str = "latency=1ms", data: str = "data"
) -> subprocess.CompletedProcess[str]:
    """The tables' latencies are from a formula: a device that was looked at would have drifted."""
    return dmask(
        "search",
        "demo",
        "--data",
        data,
        "--budget",
        budget,
        "--table",
        table,
        *(more or ["--allow-drift"]),
        "-o",
        run,
        "--epochs",
        1,
        cwd=folder,
    )


def test_space_with_an_unknown_key(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE.to_dict() | {"depth": 3}))
    assert_refused(dmask("space", "show", path, cwd=folder), "space.json", "unknown key 'depth'")


def test_space_with_an_empty_option_list(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    text = "{format: dmask-space, version: 1, name: x, input: {resolutions: [32]}, stem: {widths: []}, "
    text += "stages: [{blocks: 1, widths: [8], expansions: [2]}], last: {widths: [16]}}"
    path.write_text(text)
    assert_refused(dmask("space", "show", path, cwd=folder), "stem.widths: an option list must name at least one")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "Pixel 6"}, ("device of the table is 'Pixel 6'", "profile this one: dmask profile")),
        ({"runtime_version": "0.1"}, ("runtime_version of the table is '0.1'",)),
        ({"version": 9}, ("version 9 of dmask-latency-table", "reads version 1")),
    ],
)
def test_table_of_something_else(
    changes: dict[str, object], words: tuple[str, ...], folder: Path, table: Path, tmp_path: Path
) -> None:
    edit_head(table, **changes)
    assert_refused(search(folder, table, tmp_path / "run", "--loss", "budget"), *words)
    assert not (tmp_path / "run").exists()


def test_an_emulators_table(folder: Path, table: Path, tmp_path: Path) -> None:
    edit_head(table, emulated=True)
    assert_refused(search(folder, table, tmp_path / "run"), "its times are meaningless", "--emulated")


def test_a_table_of_another_precision(folder: Path, table: Path, tmp_path: Path) -> None:
    done = search(folder, table, tmp_path / "run", "--allow-drift", "--precision", "int8")
    assert_refused(
        done, "is a table for fp32, but the network will be exported in int8", "dmask profile SPACE --precision int8"
    )


def test_table_whose_last_line_is_cut_off(folder: Path, table: Path) -> None:
    table.write_text(table.read_text()[:-30])
    assert_refused(
        dmask("table", "show", table, cwd=folder), "the last one, is incomplete", "it drops that line and continues"
    )


@pytest.mark.parametrize(("budget", "where"), [("latency=0.001ms", "below"), ("latency=1000ms", "above")])
def test_budget_out_of_reach(budget: str, where: str, folder: Path, table: Path, tmp_path: Path) -> None:
    done = search(folder, table, tmp_path / "run", budget=budget)
    assert_refused(done, f"is {where} what 'demo' can reach:", " to ", "choose a budget in that range")
    assert not (tmp_path / "run").exists()


def test_budget_that_is_no_budget(folder: Path, table: Path, tmp_path: Path) -> None:
    assert_refused(
        search(folder, table, tmp_path / "run", budget="latency"), "a budget is NAME=VALUE", "latency=0.08ms"
    )


def test_data_without_images(folder: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    done = search(folder, table, tmp_path / "run", data=str(tmp_path / "empty"))
    assert_refused(done, "contains no image", "put the images of that class into it")


def test_data_with_one_class(folder: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "cat" / "a.png")
    done = search(folder, table, tmp_path / "run", data=str(tmp_path / "one"))
    assert_refused(done, "has 1 class: cat", "at least two classes")


def test_corrupt_child(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "child.json"
    path.write_text('{"format": "dmask-child", "version": 1, "name": ')
    assert_refused(dmask("export", path, cwd=folder), "cannot read", "child.json", "restore the file or make it again")


def test_export_of_something_unknown(folder: Path) -> None:
    done = dmask("export", "resnet", cwd=folder)
    assert_refused(done, "'resnet' is not a run folder, a child.json or the name of a network", "fbnetv2_f1")


def test_export_format_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    done = dmask("export", "fbnetv2_f1", "--format", "tflite", "-o", tmp_path / "run", cwd=folder)
    assert_refused(done, "no export format 'tflite'; choose from onnx, coreml")


def test_verification_with_an_artifact_missing(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = SPACE.child(SPACE.smallest())
    child.write(tmp_path / "child.json")
    assert dmask("export", tmp_path / "child.json", "--format", "onnx", "-o", run, cwd=folder).returncode == 0
    (run / "exports" / "model.onnx").unlink()
    done = dmask("verify", run, "--data", "fashion-mnist", cwd=folder)
    if "dataset-fashion-mnist" in done.stderr:
        done = dmask("verify", run, "--data", "glyphs", cwd=folder)
    assert_refused(done, "model.onnx' is missing; export it again")


def test_an_option_out_of_range(folder: Path, tmp_path: Path) -> None:
    done = dmask("train", tmp_path, "--learning-rate", "-1", cwd=folder)
    assert_refused(done, "TrainSettings: learning_rate: Input should be greater than 0, got -1.0")


def test_a_folder_that_is_no_run(folder: Path, tmp_path: Path) -> None:
    for command in ("train", "verify", "export"):
        assert_refused(dmask(command, tmp_path, cwd=folder), "is not a run folder: it has no run.json")


def test_a_full_disk(folder: Path, tmp_path: Path) -> None:
    """A limit on file sizes makes writes fail as a full disk does."""
    table = tmp_path / "t.jsonl"
    space = Path(__file__).parent / "golden" / "space_v1.yaml"
    command = [DMASK, "profile", str(space), "-o", str(table), "--rounds", "50"]
    limited = ["/bin/sh", "-c", 'ulimit -f 400 && exec "$@"', "sh", *command]  # blocks of 512 bytes
    done = run_command(limited, cwd=folder)
    assert_refused(done, "File too large", "everything measured or trained so far is kept")
    assert table.read_bytes().count(b"\n") > 10


def test_a_profile_of_nothing(folder: Path) -> None:
    assert_refused(dmask("profile", "demo", cwd=folder), "a profile needs a table, and a space or --missing")
    assert_refused(
        dmask("profile", "demo", "-o", "t.jsonl", "--target-error", "3", cwd=folder), "a share must be a number between"
    )


def test_a_foreign_table_with_wrong_rows(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "foreign.yaml"
    source.write_text("Conv-input:8x8x3-output:4x4x8: {mean: -1.0}\nLogits-input:4x4x8-output:10: {mean: 0.5}\n")
    command = ["table", "import", source, "--format", "proxylessnas", "--device", "X", "--runtime", "tflite", "-o"]
    refused = dmask(*command, tmp_path / "t.jsonl", cwd=folder)
    assert_refused(refused, "has 1 entries that are wrong or are not known blocks", "--skip-bad")
    assert "a latency must be positive, got -1 ms" in refused.stdout
    assert dmask(*command, tmp_path / "t.jsonl", "--skip-bad", cwd=folder).returncode == 0
    shown = json.loads(dmask("table", "show", tmp_path / "t.jsonl", "--json", cwd=folder).stdout)
    assert (shown["device"], shown["num_blocks"]) == ("X", 1)


def test_debug_shows_the_traceback(folder: Path) -> None:
    done = dmask("--debug", "space", "show", "nowhere", cwd=folder)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["demo"], ["profile"], ["search"], ["train"], ["export"], ["verify"], ["table", "show"], ["table", "evaluate"],
     ["table", "plot"], ["table", "merge"], ["table", "diff"], ["table", "import"], ["space", "show"],
     ["space", "count"]],
)  # fmt: skip
def test_help_has_an_example(command: list[str], folder: Path) -> None:
    done = dmask(*command, "--help", cwd=folder)
    assert done.returncode == 0
    assert f"Example: dmask {' '.join(command)}" in done.stdout


def test_json_of_space_and_table(folder: Path, table: Path) -> None:
    space = json.loads(dmask("space", "count", "demo", "--json", cwd=folder).stdout)
    assert space["num_children"] == load_space("demo").num_children()
    shown = json.loads(dmask("table", "show", table, "--json", cwd=folder).stdout)
    assert shown["device"] == local_head().device
    assert shown["num_networks"] == 4


def test_named_network_exports_from_a_folder_with_an_export_module(tmp_path: Path) -> None:
    """A user's own ``export.py`` and ``export/`` must not be taken for ours."""
    (tmp_path / "export.py").write_text("raise SystemExit('the wrong export')\n")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("raise SystemExit('the wrong export')\n")
    done = dmask("export", "fbnetv2_f1", "--format", "onnx", "-o", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (artifact,) = described("export", done.stdout)
    assert (tmp_path / "run" / "exports" / artifact["path"]).stat().st_size == artifact["size_bytes"]


def test_the_python_api_names_a_foreign_export_module(tmp_path: Path) -> None:
    (tmp_path / "export.py").write_text("")
    code = "from pathlib import Path; from dmask_mobile import api; api.export(Path('run'), ['onnx'])"
    done = run_command([sys.executable, "-c", code], cwd=tmp_path)
    assert done.returncode != 0
    assert "export.py', not dmask-mobile's package" in done.stderr


def test_options_that_would_be_ignored(folder: Path, table: Path, tmp_path: Path) -> None:
    done = dmask("profile", "--missing", "child.json", "--table", table, "--runtime", "litert", cwd=folder)
    assert_refused(done, "--missing uses the settings of the table", "no options other than")
    done = dmask("profile", "demo", "-o", tmp_path / "t.jsonl", "--cores", "9999", cwd=folder)
    assert_refused(done, "the device has the cores 0 to", "choose others with --cores")
    assert not (tmp_path / "t.jsonl").exists()
