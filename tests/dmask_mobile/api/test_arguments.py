"""The API accepts text for paths and single items for lists; its settings are available without further imports."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from dmask_mobile import api
from dmask_mobile.api.arguments import as_path, as_paths, as_tuple, as_words, check_limits
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from tests.dmask_mobile.small import SPACE
from tests.latency_tables.factory import write_table
from tests.processes import run_command


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a b", (Path("a b"),)),
        (Path("a"), (Path("a"),)),
        (["a", Path("b")], (Path("a"), Path("b"))),
        ((), ()),
    ],
)
def test_paths(given: api.arguments.AnyPaths, expected: tuple[Path, ...]) -> None:
    assert as_paths(given) == expected


def test_a_path_that_is_none() -> None:
    with pytest.raises(DmaskError, match=r"a path is a str or a Path, got 3"):
        as_path(3)  # type: ignore[arg-type]


def test_one_word_is_not_its_letters() -> None:
    assert as_words("onnx") == ("onnx",)
    assert as_words(["onnx", "coreml"]) == ("onnx", "coreml")
    assert as_tuple(3) == (3,)
    assert as_tuple([3, 4]) == (3, 4)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf, "0.1ms", True, None])
def test_budgets_that_are_no_positive_numbers(limit: float, tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"budget 'macs' must be a positive number, got"):
        api.search(SPACE, "no such data", {"macs": limit}, tmp_path / "run")
    check_limits({"macs": 1})


def test_text_and_single_values_are_taken(tmp_path: Path) -> None:
    run, space = str(tmp_path / "run"), load_space("demo")
    api.start_run(space.child(space.smallest()), run)
    (artifact,) = api.export(run, "onnx")
    assert (tmp_path / "run" / "exports" / artifact.path).is_file()
    table = str(write_table(tmp_path / "table.jsonl", space))
    assert [cost.name for cost in api.all_costs(table)][-1] == "latency"
    assert api.cost_model("latency", table, emulated=True).name == "latency"
    space.write(tmp_path / "space.json")
    assert api.load_space(tmp_path / "space.json") == space


@pytest.mark.slow
def test_settings_are_exported_and_load_when_they_are_asked_for() -> None:
    code = (
        "import sys; from dmask_mobile import api;"
        "assert not {'torch', 'latency_tables', 'export'} & set(sys.modules);"
        "assert set(api.__all__) <= set(dir(api));"
        "print(*(getattr(api, name).__name__ for name in api.__all__ if name[0].isupper()))"
    )
    done = run_command([sys.executable, "-P", "-c", code])
    expected = (
        "DataOptions DataSource DeviceOptions DmaskError ExportSettings ImportedSpace Machine ProfileSettings Run"
        " SearchSettings SearchSpace Times TrainSettings VerifySettings\n"
    )
    assert done.stdout == expected, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Settings'"):
        _ = api.Settings


def test_a_wrong_table_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{}\n")
    with pytest.raises(DmaskError, match=r"t\.jsonl"):
        api.search(SPACE, "no such data", {"latency": 1.0}, tmp_path / "run", tables=tmp_path / "t.jsonl")


def test_the_current_folder_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_path(".") == tmp_path
    with pytest.raises(DmaskError):
        api.verify(".")


def test_a_refused_search_leaves_no_run_folder(tmp_path: Path) -> None:
    for run in (tmp_path / "run", str(tmp_path / "run")):
        with pytest.raises(DmaskError, match="no cost 'flops'"):
            api.search(SPACE, "no such data", {"flops": 1.0}, run)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with pytest.raises(DmaskError, match="no cost 'flops'"):
        api.search(SPACE, "no such data", {"flops": 1.0}, tmp_path / "run")
    assert (tmp_path / "run").is_dir()  # the user's own
